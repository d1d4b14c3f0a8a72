"""A tiny Gram-GAN trained from LMDB through the command line, and what it must have learned."""

import json
from pathlib import Path

import pytest
import torch

from gramgan_plugin.cli.main import main
from gramgan_plugin.config import resolve_options
from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.data.loaders import build_dataset
from gramgan_plugin.data.seeded import SampleIndex, SeededDataset
from gramgan_plugin.functional import random_theta
from gramgan_plugin.losses import GramPatchLoss

CPU = torch.device("cpu")


def _fixed_batch(options):
    """Four crops of the training set that do not change."""
    opt = resolve_options(options, is_train=True)
    dataset = SeededDataset(build_dataset("train", opt["datasets"]["train"]), manual_seed=123)
    samples = [dataset[SampleIndex(0, place, place % len(dataset))] for place in range(4)]
    batch = {key: torch.stack([sample[key] for sample in samples]) for key in ("lq", "gt")}
    return to_model_batch(batch, CPU)


def _losses(options, weights: Path, batch) -> dict[str, float]:
    from basicsr.archs.rrdbnet_arch import RRDBNet

    net = RRDBNet(**{key: value for key, value in options["network_g"].items() if key != "type"})
    net.load_state_dict(torch.load(weights, weights_only=True)["params_ema"])
    with torch.no_grad():
        sr = net(batch["lq"])
        theta = random_theta(4, 1, 0.003, seed=(0, 0))
        return {
            "content": float((sr - batch["gt"]).abs().mean()),
            "texture": float(GramPatchLoss()(sr, batch["gt"], theta=theta)),
        }


def test_content_and_texture_fall_and_every_term_reaches_g(tiny_options, write_options, workdir):
    options = tiny_options
    options["train"] |= {"total_iter": 150, "ema_decay": 0.9}
    options["train"]["optim_g"]["lr"] = 2e-3
    options["train"]["scheduler"] |= {"period": 1000, "warmup_iter": 5}
    # With all weights 1 the adversarial side dwarfs the rest; here the two losses that are looked at must lead.
    options["train"]["disc_perceptual_opt"]["loss_weight"] = 1e-3
    options["train"]["gan_opt"]["loss_weight"] = 1e-4
    # Uncentred: the centred loss of an output that is still flat is small, since its targets are nearly flat, too.
    options["train"]["gram_patch_opt"] |= {"loss_weight": 10.0, "center": False}
    options["logger"] |= {"print_freq": 10, "save_checkpoint_freq": 10}
    options["val"]["val_freq"] = 150
    assert main(["train", "-opt", write_options(options)]) == 0

    run = workdir / "experiments/tiny"
    batch = _fixed_batch(options)
    early, late = (_losses(options, run / f"models/net_g_{n}.pth", batch) for n in (10, 150))
    assert late["content"] < 0.5 * early["content"]
    assert late["texture"] < 0.5 * early["texture"]

    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    training = [line for line in lines if "l_g_pix" in line]
    assert len(training) == 15
    for key in ("pix", "gram", "dp", "gan"):
        assert all(line[f"grad_g_{key}"] > 0 for line in training), key
    assert training[-1]["l_d_real"] + training[-1]["l_d_fake"] < training[0]["l_d_real"] + training[0]["l_d_fake"]

    # What was trained can be tested, by its own name.
    for key in ("train", "network_d"):
        del options[key]
    options["datasets"] = {"test": options["datasets"]["val"]}
    options["path"] = {"pretrain_network_g": str(run / "models/net_g_latest.pth"), "param_key_g": "params_ema"}
    assert main(["test", "-opt", write_options(options, "test.yml")]) == 0
    rows = json.loads((workdir / "results/tiny/results.json").read_text())["rows"]
    validated = [line["metrics"]["psnr"] for line in lines if "metrics" in line][-1]
    tested = {row["model"]: row["mean"] for row in rows if row["metric"] == "psnr"}
    assert tested["tiny"] == pytest.approx(validated, abs=1e-6)


def test_the_beby_gan_setting_and_back_projection(tiny_options, write_options, workdir):
    options = tiny_options
    options["datasets"]["train"]["gt_size"] = 96
    options["network_d"]["input_size"] = 96
    options["train"]["gram_patch_opt"] = {
        "type": "GramPatchLoss", "patch_size": 3, "select_by": "pixel", "loss_on": "pixel",
        "downsample": [2, 4], "antialias": False, "affine_copies": 0,
    }  # fmt: skip
    options["train"]["gan_opt"]["mask"] = "beby"
    options["train"]["back_projection_opt"] = {"type": "L1Loss"}
    del options["train"]["disc_perceptual_opt"]
    assert main(["train", "-opt", write_options(options)]) == 0
    lines = [json.loads(line) for line in (workdir / "experiments/tiny/metrics.jsonl").read_text().splitlines()]
    for key in ("pix", "gram", "gan", "bp"):
        assert lines[0][f"grad_g_{key}"] > 0, key


def test_a_folder_of_photos_without_preparation(tiny_options, sample_pair, write_options, workdir):
    """LQ made on the fly: the third data source that an option file can name."""
    train = tiny_options["datasets"]["train"]
    train["dataroot_gt"] = str(sample_pair / "test/GT")
    train["io_backend"] = {"type": "disk"}
    train["lq"] = "bicubic"
    train["dataset_enlarge_ratio"] = 8
    del train["dataroot_lq"]
    assert main(["train", "-opt", write_options(tiny_options)]) == 0
    assert (workdir / "experiments/tiny/training_states/4.json").is_file()
