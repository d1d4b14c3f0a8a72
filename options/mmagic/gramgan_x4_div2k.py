# Gram-GAN x4 on DIV2K under MMagic 1.2 (docs/mmagic.md): the losses, networks and step of train_gramgan_x4.yml.
#   basicsr prepare div2k --hr DIV2K_train_HR --out datasets/DIV2K      (once; in any environment)
#   basicsr prepare benchmarks                                          (Set5 and Set14)
#   basicsr convert RRDBNet_PSNR_x4.pth --to safetensors -o net_g_psnr.safetensors
#   python mmagic/tools/train.py gramgan_x4_div2k.py
custom_imports = dict(imports=["gramgan_plugin.adapters.mmengine_registration"], allow_failed_imports=False)
default_scope = "mmagic"
experiment_name = "gramgan_x4_div2k"
work_dir = f"./work_dirs/{experiment_name}"
scale = 4
max_iters = 600_000

model = dict(
    type="GramGAN",
    generator=dict(  # MMagic's own; its tensors have the names of BasicSR's
        type="RRDBNet",
        in_channels=3,
        out_channels=3,
        mid_channels=64,
        num_blocks=23,
        growth_channels=32,
        upscale_factor=scale,
    ),
    discriminator=dict(type="GramGANDiscriminator", num_in_ch=3, num_feat=64, input_size=192),
    pretrained="net_g_psnr.safetensors",  # the L1 stage, or an ESRGAN; None to begin from random weights
    manual_seed=0,
    data_preprocessor=dict(type="DataPreprocessor", mean=[0.0] * 3, std=[255.0] * 3),  # of the sets below
    train=dict(  # as in the `train` section of train_gramgan_x4.yml; docs/options.md explains each
        ema_decay=0.999,
        precision="fp32",  # or bf16; fp16 needs torch 2.3
        accumulate=1,
        pixel_opt=dict(type="L1Loss", loss_weight=1.0, reduction="mean"),
        gram_patch_opt=dict(
            type="GramPatchLoss",
            loss_weight=1.0,
            patch_size=4,
            alpha=1.0,
            beta=1.0,
            normalize=True,
            center=False,
            downsample=[2],
            affine_copies=1,
            affine_magnitude=0.003,
            scope="crop",
        ),
        perceptual_opt=dict(
            type="VGGPerceptualLoss",
            loss_weight=1.0,
            criterion="l1",
            layer_weights=dict(conv2_2=1.0, conv4_2=0.1, conv4_4=0.01),
            vgg_weights=None,  # a file with torchvision's key names; None fetches torchvision's weights once
        ),
        disc_perceptual_opt=dict(
            type="DiscPerceptualLoss", loss_weight=1.0, taps=["conv2_0", "conv5_0"], criterion="mse"
        ),
        gan_opt=dict(
            type="MaskedRaGANLoss", loss_weight=5e-3, mask=dict(window=4, stride=4, threshold=0.005, source="gt")
        ),
    ),
)

# Optimizers, and the schedule: cosine decay with a restart every 200k iterations, each cycle with a warm-up.
adam = dict(type="Adam", lr=1e-4, betas=(0.9, 0.999))
optim_wrapper = dict(
    constructor="GANOptimWrapperConstructor", generator=dict(optimizer=adam), discriminator=dict(optimizer=adam)
)
param_scheduler = dict(type="CosineRestartWarmupLR", by_epoch=False, period=200_000, warmup_iter=2000, eta_min=1e-7)

train_dataloader = dict(
    batch_size=8,
    num_workers=6,
    persistent_workers=True,
    sampler=dict(type="InfiniteSampler", shuffle=True),
    collate_fn=dict(type="default_collate"),
    dataset=dict(  # what `basicsr prepare` has packed
        type="PairedSRDataset",
        phase="train",
        scale=scale,
        gt_size=192,
        use_hflip=True,
        use_rot=True,
        dataroot_gt="datasets/DIV2K/GT.lmdb",
        dataroot_lq=f"datasets/DIV2K/LQ_x{scale}.lmdb",
        io_backend=dict(type="lmdb"),
    ),
)
train_cfg = dict(type="IterBasedTrainLoop", max_iters=max_iters, val_interval=5000)

# Evaluation, by MMagic's datasets and metrics.
_load = [
    dict(type="LoadImageFromFile", key=key, color_type="color", channel_order="rgb", imdecode_backend="cv2")
    for key in ("img", "gt")
]
val_dataloader = [
    dict(
        num_workers=2,
        sampler=dict(type="DefaultSampler", shuffle=False),
        dataset=dict(
            type="BasicImageDataset",
            metainfo=dict(dataset_type=name.lower(), task_name="sisr"),
            data_root=f"datasets/{name}",
            data_prefix=dict(img=f"LRbicx{scale}", gt="GTmod12"),
            pipeline=[*_load, dict(type="PackInputs")],
        ),
    )
    for name in ("Set5", "Set14")
]
val_evaluator = [
    dict(type="Evaluator", metrics=[dict(type=kind, crop_border=scale, prefix=name) for kind in ("PSNR", "SSIM")])
    for name in ("Set5", "Set14")
]
val_cfg = dict(type="MultiValLoop")
test_dataloader, test_evaluator, test_cfg = val_dataloader, val_evaluator, dict(type="MultiTestLoop")

default_hooks = dict(
    timer=dict(type="IterTimerHook"),
    logger=dict(type="LoggerHook", interval=100),
    param_scheduler=dict(type="ParamSchedulerHook"),
    checkpoint=dict(type="CheckpointHook", interval=5000, by_epoch=False, save_best="Set5/PSNR", rule="greater"),
    sampler_seed=dict(type="DistSamplerSeedHook"),
)
log_processor = dict(type="LogProcessor", window_size=100, by_epoch=False)
log_level = "INFO"
randomness = dict(seed=0)
# Several GPUs: G and D each in a wrapper of its own; D's buffers must not be copied during a step that uses them twice.
model_wrapper_cfg = dict(type="MMSeparateDistributedDataParallel", broadcast_buffers=False)
env_cfg = dict(cudnn_benchmark=False, mp_cfg=dict(mp_start_method="fork"), dist_cfg=dict(backend="nccl"))
load_from = None
resume = False
