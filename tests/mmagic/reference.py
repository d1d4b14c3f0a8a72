"""Make what tests/mmagic/compare.py needs: photos, small networks, a batch, and one step's losses by GramGANModel.

Runs in the environment with BasicSR: ``python tests/mmagic/reference.py FOLDER``.
"""

import json
import os
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

import gramgan_plugin
from gramgan_plugin.cli.main import main as basicsr
from gramgan_plugin.config import resolve_options
from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.models.build import build_model

TRAIN = {
    "ema_decay": 0.9,
    "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0},
    "gram_patch_opt": {"type": "GramPatchLoss", "loss_weight": 1.0, "center": True},
    "disc_perceptual_opt": {"type": "DiscPerceptualLoss", "taps": ["conv1_0", "conv3_0"]},
    "gan_opt": {"type": "MaskedRaGANLoss", "loss_weight": 0.005},
}
DISCRIMINATOR = {"type": "GramGANDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": 64}
OPTIMIZER = {"type": "Adam", "lr": 1e-4}


def main(folder: Path) -> None:
    """Write the files into ``folder``."""
    from basicsr.archs.rrdbnet_arch import RRDBNet  # which imports once this package has

    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    if not Path("datasets").exists():
        assert basicsr(["prepare", "sample"]) == 0
    sets = next(Path("datasets").iterdir())
    torch.manual_seed(0)
    save_file(RRDBNet(3, 3, 4, num_feat=8, num_block=1, num_grow_ch=4).state_dict(), "start.safetensors")
    options = {
        "name": "reference",
        "model_type": "GramGANModel",
        "scale": 4,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {
            "train": {
                "name": "train",
                "type": "PairedSRDataset",
                "io_backend": {"type": "lmdb"},
                "dataroot_gt": str(sets / "GT.lmdb"),
                "dataroot_lq": str(sets / "LQ_x4.lmdb"),
                "gt_size": 64,
                "num_worker_per_gpu": 0,
                "batch_size_per_gpu": 2,
            }
        },
        "network_g": {
            "type": "RRDBNet",
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 8,
            "num_block": 1,
            "num_grow_ch": 4,
        },
        "network_d": DISCRIMINATOR,
        "path": {"pretrain_network_g": "start.safetensors", "param_key_g": None},
        "train": TRAIN
        | {
            "optim_g": OPTIMIZER,
            "optim_d": OPTIMIZER,
            "total_iter": 4,
            "scheduler": {"type": "CosineRestartWarmupLR", "period": 100, "warmup_iter": 2},
        },
        "logger": {"print_freq": 100, "save_checkpoint_freq": 100, "use_tb_logger": False},
    }
    opt = resolve_options(options, is_train=True) | {"rank": 0, "world_size": 1}
    model = build_model(opt)
    save_file({name: tensor.contiguous() for name, tensor in model.net_d.state_dict().items()}, "d.safetensors")
    model.feed_data(next(TrainingData(opt).batches(0, 0))[-1])
    save_file({"lq": model.lq.contiguous(), "gt": model.gt.contiguous()}, "batch.safetensors")
    model.update_learning_rate(1)
    model.optimize_parameters(1)
    keep = {key: float(value) for key, value in model.log_dict.items()}
    Path("reference.json").write_text(
        json.dumps({"torch": torch.__version__, "log": keep, "train": TRAIN, "sets": str(sets)}, indent=1)
    )
    print(f"BasicSR, torch {torch.__version__}, plugin {gramgan_plugin.__version__}: {keep}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
