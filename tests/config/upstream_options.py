"""Keys and values of upstream's option files, as BasicSR 1.4.2 and Real-ESRGAN ship them."""

from copy import deepcopy
from typing import Any

ADAM = {"type": "Adam", "lr": 1e-4, "weight_decay": 0, "betas": [0.9, 0.99]}
LOADER = {
    "use_shuffle": True,
    "num_worker_per_gpu": 6,
    "batch_size_per_gpu": 16,
    "dataset_enlarge_ratio": 100,
    "prefetch_mode": None,
}
L1 = {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"}
GAN = {"type": "GANLoss", "gan_type": "vanilla", "real_label_val": 1.0, "fake_label_val": 0.0, "loss_weight": 5e-3}
PERCEPTUAL = {
    "type": "PerceptualLoss",
    "layer_weights": {"conv5_4": 1},
    "vgg_type": "vgg19",
    "use_input_norm": True,
    "range_norm": False,
    "perceptual_weight": 1.0,
    "style_weight": 0,
    "criterion": "l1",
}
PSNR = {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": False}
RRDB = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 23, "num_grow_ch": 32}
VGG_D = {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 64}
COSINE = {
    "type": "CosineAnnealingRestartLR",
    "periods": [250000] * 4,
    "restart_weights": [1, 1, 1, 1],
    "eta_min": 1e-7,
}


def _pairs(name: str, gt: str, lq: str, **more: Any) -> dict[str, Any]:
    roots = {"dataroot_gt": f"datasets/{gt}", "dataroot_lq": f"datasets/{lq}"}
    return {"name": name, "type": "PairedImageDataset", **roots, "io_backend": {"type": "disk"}, **more}


def _base(name: str, model: str) -> dict[str, Any]:
    crop = {"filename_tmpl": "{}", "gt_size": 128, "use_hflip": True, "use_rot": True}
    return {
        "name": name,
        "model_type": model,
        "scale": 4,
        "num_gpu": 1,
        "manual_seed": 0,
        "datasets": {
            "train": _pairs(
                "DIV2K", "DIV2K/DIV2K_train_HR_sub", "DIV2K/DIV2K_train_LR_bicubic/X4_sub", **crop, **LOADER
            ),
            "val": _pairs("Set14", "Set14/GTmod12", "Set14/LRbicx4"),
        },
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.999,
            "optim_g": ADAM,
            "scheduler": COSINE,
            "total_iter": 1000000,
            "warmup_iter": -1,
            "pixel_opt": L1,
        },
        "val": {"val_freq": 5e3, "save_img": False, "metrics": {"psnr": PSNR}},
        "logger": {
            "print_freq": 100,
            "save_checkpoint_freq": 5e3,
            "use_tb_logger": True,
            "wandb": {"project": None, "resume_id": None},
        },
        "dist_params": {"backend": "nccl", "port": 29500},
    }


def _adversarial(options: dict[str, Any]) -> dict[str, Any]:
    options["network_d"] = VGG_D
    options["train"] |= {
        "optim_d": ADAM,
        "scheduler": {"type": "MultiStepLR", "milestones": [50000, 100000, 200000, 300000], "gamma": 0.5},
        "total_iter": 400000,
        "pixel_opt": {**L1, "loss_weight": 1e-2},
        "perceptual_opt": PERCEPTUAL,
        "gan_opt": GAN,
        "net_d_iters": 1,
        "net_d_init_iters": 0,
    }
    return options


def esrgan() -> dict[str, Any]:
    """options/train/ESRGAN/train_ESRGAN_x4.yml"""
    options = _adversarial(_base("train_ESRGAN_x4_f64b23_DIV2K_400k_B16G1", "ESRGANModel"))
    network = {key: value for key, value in RRDB.items() if key != "num_grow_ch"}
    return deepcopy(options | {"network_g": network})


def srgan() -> dict[str, Any]:
    """options/train/SRResNet_SRGAN/train_MSRGAN_x4.yml"""
    return deepcopy(_adversarial(_base("004_MSRGAN_x4_f64b16_DIV2K_400k_B16G1_wandb", "SRGANModel")) | MSRRESNET)


MSRRESNET = {
    "network_g": {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 16, "upscale": 4}
}


def srresnet() -> dict[str, Any]:
    """options/train/SRResNet_SRGAN/train_MSRResNet_x4.yml"""
    options = deepcopy(_base("001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb", "SRModel") | MSRRESNET)
    options["datasets"]["train"]["meta_info_file"] = "basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt"
    options["datasets"]["val_2"] = _pairs("Set5", "Set5/GTmod12", "Set5/LRbicx4")
    options["path"]["param_key_g"] = "params"
    options["val"]["metrics"]["psnr"] = {**PSNR, "better": "higher"}
    options["val"]["metrics"]["niqe"] = {"type": "calculate_niqe", "crop_border": 4, "better": "lower"}
    return options


def rrdbnet_psnr() -> dict[str, Any]:
    """options/train/ESRGAN/train_RRDBNet_PSNR_x4.yml"""
    options = _base("051_RRDBNet_PSNR_x4_f64b23_DIV2K_1000k_B16G1_wandb", "SRModel")
    return deepcopy(options | {"network_g": RRDB})


def _blur(suffix: str, sigma: float) -> dict[str, Any]:
    kernels = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
    return {
        f"blur_kernel_size{suffix}": 21,
        f"kernel_list{suffix}": kernels,
        f"kernel_prob{suffix}": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
        f"sinc_prob{suffix}": 0.1,
        f"blur_sigma{suffix}": [0.2, sigma],
        f"betag_range{suffix}": [0.5, 4],
        f"betap_range{suffix}": [1, 2],
    }


# The keys of the degradation at the top of Real-ESRGAN's own option files.
REAL_ESRGAN = {
    "resize_prob": [0.2, 0.7, 0.1],
    "resize_range": [0.15, 1.5],
    "gaussian_noise_prob": 0.5,
    "noise_range": [1, 30],
    "poisson_scale_range": [0.05, 3],
    "gray_noise_prob": 0.4,
    "jpeg_range": [30, 95],
    "second_blur_prob": 0.8,
    "resize_prob2": [0.3, 0.4, 0.3],
    "resize_range2": [0.3, 1.2],
    "gaussian_noise_prob2": 0.5,
    "noise_range2": [1, 25],
    "poisson_scale_range2": [0.05, 2.5],
    "gray_noise_prob2": 0.4,
    "jpeg_range2": [30, 95],
}


def real_esrnet() -> dict[str, Any]:
    """Real-ESRGAN's options/train_realesrnet_x4plus.yml"""
    options = deepcopy(_base("train_RealESRNetx4plus_1000k_B12G4_fromESRGAN", "RealESRNetModel"))
    degradation = {
        "gt_usm": True,
        **REAL_ESRGAN,
        "gt_size": 256,
        "queue_size": 180,
    }
    train = {
        "name": "DF2K+OST",
        "type": "RealESRGANDataset",
        "dataroot_gt": "datasets/DF2K",
        "meta_info": "datasets/DF2K/meta_info/meta_info_DF2Kmultiscale+OST_sub.txt",
        "io_backend": {"type": "disk"},
        **_blur("", 3),
        **_blur("2", 1.5),
        "final_sinc_prob": 0.8,
        "gt_size": 256,
        "use_hflip": True,
        "use_rot": False,
        **LOADER,
        "num_worker_per_gpu": 5,
        "batch_size_per_gpu": 12,
        "dataset_enlarge_ratio": 1,
    }
    del options["val"]
    options["train"]["scheduler"] = {"type": "MultiStepLR", "milestones": [1000000], "gamma": 0.5}
    options["train"]["optim_g"]["lr"] = 2e-4
    options["path"] |= {
        "pretrain_network_g": "experiments/pretrained_models/ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
        "param_key_g": "params_ema",
    }
    return options | degradation | {"num_gpu": 4, "datasets": {"train": train}, "network_g": deepcopy(RRDB)}


def real_esrgan() -> dict[str, Any]:
    """Real-ESRGAN's options/train_realesrgan_x4plus.yml"""
    options = real_esrnet()
    del options["gt_usm"]
    options |= {
        "name": "train_RealESRGANx4plus_400k_B12G4_fromRealESRNet",
        "model_type": "RealESRGANModel",
        "l1_gt_usm": True,
        "percep_gt_usm": True,
        "gan_gt_usm": False,
    }
    options = _adversarial(options)
    options["network_d"] = {"type": "UNetDiscriminatorSN", "num_in_ch": 3, "num_feat": 64, "skip_connection": True}
    options["path"]["pretrain_network_g"] = "experiments/pretrained_models/RealESRNet_x4plus.pth"
    layers = {"conv1_2": 0.1, "conv2_2": 0.1, "conv3_4": 1, "conv4_4": 1, "conv5_4": 1}
    options["train"] |= {
        "scheduler": {"type": "MultiStepLR", "milestones": [400000], "gamma": 0.5},
        "pixel_opt": L1,
        "perceptual_opt": {**PERCEPTUAL, "layer_weights": layers},
        "gan_opt": {**GAN, "loss_weight": 0.1},
    }
    return deepcopy(options)


def real_esrgan_pairs() -> dict[str, Any]:
    """Real-ESRGAN's options/finetune_realesrgan_x4plus_pairdata.yml"""
    options = real_esrgan()
    kept = {"name", "type", "io_backend", "gt_size", "use_hflip", "use_rot", *LOADER}
    train = {key: value for key, value in options["datasets"]["train"].items() if key in kept}
    train |= {
        "name": "DIV2K",
        "type": "RealESRGANPairedDataset",
        "dataroot_gt": "datasets/DF2K",
        "dataroot_lq": "datasets/DF2K",
        "meta_info": "datasets/DF2K/meta_info/meta_info_DIV2K_sub_pair.txt",
    }
    usm = ("l1_gt_usm", "percep_gt_usm", "gan_gt_usm")
    top = {"name", "model_type", "scale", "num_gpu", "manual_seed", "network_g", "network_d", "path", "train", "logger"}
    options = {key: value for key, value in options.items() if key in top or key in usm or key == "dist_params"}
    options["path"] |= {"pretrain_network_d": "experiments/pretrained_models/RealESRGAN_x4plus_netD.pth"}
    options["path"] |= {"param_key_d": "params", "strict_load_d": True}
    return options | {"num_gpu": "auto", "high_order_degradation": False, "datasets": {"train": train}}


ALL = (esrgan, srgan, srresnet, rrdbnet_psnr, real_esrnet, real_esrgan, real_esrgan_pairs)
