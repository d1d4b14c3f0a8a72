"""Train with MMagic's runner: one step against tests/mmagic/reference.py, some through the shipped configuration.

Runs in MMagic's environment: ``python tests/mmagic/compare.py FOLDER``.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import mmagic
import mmengine
import torch
from mmengine.config import Config
from mmengine.runner import Runner
from safetensors.torch import load_file, save_file

import gramgan_plugin

SHIPPED = Path(gramgan_plugin.__file__).parents[1] / "options" / "mmagic" / "gramgan_x4_div2k.py"
GENERATOR = {
    "type": "RRDBNet",
    "in_channels": 3,
    "out_channels": 3,
    "mid_channels": 8,
    "num_blocks": 1,
    "growth_channels": 4,
    "upscale_factor": 4,
}
DISCRIMINATOR = {"type": "GramGANDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": 64}
STEPS = 6


def configuration(reference: dict[str, Any]) -> Config:
    """Return the shipped configuration with small networks, few iterations, and the sample photos."""
    config = Config.fromfile(SHIPPED)
    sets = reference["sets"]
    config.model.generator, config.model.discriminator = GENERATOR, DISCRIMINATOR
    config.model.pretrained = "start.safetensors"
    config.model.train = reference["train"]
    config.train_dataloader |= {"batch_size": 2, "num_workers": 1}
    config.train_dataloader.dataset |= {
        "gt_size": 64,
        "dataroot_gt": f"{sets}/GT.lmdb",
        "dataroot_lq": f"{sets}/LQ_x4.lmdb",
    }
    config.train_cfg |= {"max_iters": STEPS, "val_interval": STEPS}
    for loader in config.val_dataloader:
        loader.dataset.data_root = f"{sets}/test"
        loader.dataset.data_prefix = {"img": "LQ_x4", "gt": "GT"}
    config.test_dataloader = config.val_dataloader
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.interval = STEPS
    config.env_cfg.dist_cfg.backend = "gloo"
    config.work_dir = "work"
    return config


def with_mmagics_data(config: Config) -> Config:
    """Return a configuration with MMagic's own data set and pipeline for training."""
    pipeline = list(config.val_dataloader[0].dataset.pipeline)
    crop = [{"type": "SetValues", "dictionary": {"scale": 4}}, {"type": "PairedRandomCrop", "gt_patch_size": 64}]
    pipeline[-1:-1] = crop
    dataset = {**config.val_dataloader[0].dataset, "pipeline": pipeline}
    config.train_dataloader = {
        "batch_size": 2,
        "num_workers": 0,
        "sampler": {"type": "InfiniteSampler", "shuffle": True},
        "dataset": dataset,
    }
    config.train_cfg |= {"max_iters": 2, "val_interval": 1000}
    config.work_dir = "work_of_mmagics_data"
    return config


def main(folder: Path) -> None:
    """Compare, train, evaluate and leave the trained network's image of a photo."""
    os.chdir(folder)
    print(f"MMagic {mmagic.__version__}, MMEngine {mmengine.__version__}, torch {torch.__version__}")
    reference = json.loads(Path("reference.json").read_text())
    runner = Runner.from_cfg(configuration(reference))
    model = runner.model
    assert type(model.generator).__module__.startswith("mmagic."), type(model.generator)
    model.init_weights()
    model.discriminator.load_state_dict(load_file("d.safetensors"))
    log = model.train_step(load_file("batch.safetensors"), runner.build_optim_wrapper(runner.cfg.optim_wrapper))
    for key, value in reference["log"].items():
        if key.startswith("grad_") and not key.startswith("grad_norm"):
            continue  # of the diagnosis, which MMEngine's side leaves out
        difference = abs(float(log[key]) - value) / max(abs(value), 1e-6)
        print(f"{key:16} BasicSR {value:.8f}  MMagic {float(log[key]):.8f}  relative difference {difference:.1e}")
        assert difference < 1e-4, key
    runner = Runner.from_cfg(configuration(reference))
    runner.train()
    config = with_mmagics_data(configuration(reference))
    runner = Runner.from_cfg(config)
    batch = next(iter(runner.train_dataloader))
    lq, gt, _ = runner.model._images(batch, training=True)
    stored = batch["data_samples"][0].gt_img  # levels, as MMagic has loaded them
    assert torch.equal(gt[0], stored.float() / 255), "images are in [0, 1]"
    assert gt.shape[-1] == 4 * lq.shape[-1] == 64
    Runner.from_cfg(with_mmagics_data(configuration(reference))).train()
    config = configuration(reference)
    config.load_from = f"work/iter_{STEPS}.pth"
    runner = Runner.from_cfg(config)
    print("test:", runner.test())
    lq = load_file("batch.safetensors")["lq"]
    with torch.no_grad():
        save_file({"lq": lq, "sr": runner.model(lq)}, "image.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
