"""Each system's option file trains, from LMDBs, in the networks that it should; small networks, a few iterations."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.cli.main import main
from gramgan_plugin.config import load_options
from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.models import build
from gramgan_plugin.models.build import build_model
from tests.models.model_options import resolved
from tests.vgg_reference import write_weights

SMALL = {
    "RRDBNet": {"num_feat": 8, "num_block": 1, "num_grow_ch": 4},
    "SRResNetBN": {"num_feat": 8, "num_block": 2},
    "GramGANDiscriminator": {"num_feat": 4, "input_size": 96},
    "SRGANDiscriminator": {"num_feat": 4, "input_size": 96},
    "SuRGeNet": {"num_feat": 4, "num_block": 1},
    "SuRGeCritic": {"num_feat": 4},
}
# System -> the terms of G's loss, and what else is logged of D's.
SYSTEMS = {
    "train_rrdb_psnr_x4": (["pix"], []),
    "train_esrgan_x4": (["pix", "percep", "gan"], []),
    "train_srresnet_mse_x4": (["pix"], []),
    "train_srgan_x4": (["percep", "gan"], []),
    "train_bebygan_x4": (["gram", "bp", "percep", "gan"], []),
    "train_surge_x4": (["gan", "js", "gw"], ["l_d_penalty"]),
    "train_gramgan_x4": (["gram", "dp", "pix", "percep", "gan"], []),
}


@pytest.fixture
def small(sample_pair, workdir):
    """Returns a system's options, over the sample photos and with small networks."""

    def options(name: str) -> dict[str, Any]:
        opt: dict[str, Any] = deepcopy(load_options([name]))
        opt |= {"name": "small", "num_gpu": 0}
        for network in ("network_g", "network_d"):
            if network in opt:
                opt[network] |= SMALL[opt[network]["type"]]
        train, val = opt["datasets"]["train"], opt["datasets"]["val"]
        train |= {"dataroot_gt": str(sample_pair / "GT.lmdb"), "dataroot_lq": str(sample_pair / "LQ_x4.lmdb")}
        train |= {"gt_size": 96, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0}
        val |= {"dataroot_gt": str(sample_pair / "test/GT"), "dataroot_lq": str(sample_pair / "test/LQ_x4")}
        opt["path"]["pretrain_network_g"] = None
        opt["train"] |= {"total_iter": 3, "precision": "fp32"}
        opt["logger"] |= {"print_freq": 1, "use_tb_logger": False, "save_checkpoint_freq": 3, "keep_best": None}
        if "disc_perceptual_opt" in opt["train"]:
            opt["train"]["disc_perceptual_opt"]["taps"] = ["conv2_0", "conv4_0"]
        if "perceptual_opt" in opt["train"]:
            write_weights(workdir / "vgg.pth", last="conv1_2")
            opt["train"]["perceptual_opt"] |= {"layer_weights": {"conv1_2": 0.1}, "vgg_weights": "vgg.pth"}
        return opt

    return options


@pytest.mark.parametrize("name", SYSTEMS)
def test_it_trains(name, small, write_options):
    terms, of_d = SYSTEMS[name]
    opt = small(name)
    assert main(["train", "-opt", write_options(opt)]) == 0
    lines = [json.loads(line) for line in Path("experiments/small/metrics.jsonl").read_text().splitlines()]
    rows = [line for line in lines if "lr" in line]
    assert len(rows) == 3
    for row in rows:
        assert {key for key in row if key.startswith("l_g_")} == {f"l_g_{term}" for term in terms}
        assert all(row[f"grad_g_{term}"] > 0 for term in terms), "each term reaches SR"
        assert row["grad_norm_g"] > 0
        if "network_d" in opt:
            assert row["grad_norm_d"] > 0
            assert {"l_d_real", "l_d_fake", *of_d} <= row.keys()
    assert Path("experiments/small/models/net_g_latest.pth").exists()


@pytest.mark.parametrize("name", [name for name, (terms, _) in SYSTEMS.items() if "gan" in terms])
def test_what_each_loss_trains(name, small, monkeypatch):
    """G's terms leave D without a gradient; D's loss leaves G."""
    gradients = {}
    for silent in ("d", "g"):
        model = build_model(resolved(small(name)))
        if silent == "d":
            model.step.penalty = None
            monkeypatch.setattr(model.adversarial, "discriminator", lambda real, fake: (0 * real.sum(), 0 * fake.sum()))
        else:
            for term in model.terms:
                monkeypatch.setattr(term, "forward", lambda state: 0 * state.sr.sum())
        model.feed_data(next(TrainingData(model.opt).batches(0, 0))[-1])
        model.optimize_parameters(1)
        gradients[silent] = {
            key: max(float(p.grad.abs().max()) for p in net.parameters() if p.grad is not None)
            for key, net in model.networks().items()
        }
    assert gradients["d"]["g"] > 0
    assert gradients["d"]["d"] == 0
    assert gradients["g"]["d"] > 0
    assert gradients["g"]["g"] == 0


@pytest.mark.parametrize("name", ["train_esrgan_x4", "train_gramgan_x4", "train_bebygan_x4"])
def test_it_starts_from_another_system(name, small, write_options):
    """Any RRDB-based one from any other's generator: its first validation is that of the weights that it got."""
    assert main(["train", "-opt", write_options(small("train_rrdb_psnr_x4") | {"name": "first"})]) == 0
    opt = small(name)
    opt["path"] |= {"pretrain_network_g": "experiments/first/models/net_g_latest.pth", "param_key_g": "params_ema"}
    opt["train"] |= {"optim_g": {"type": "Adam", "lr": 1e-12}, "scheduler": {"type": "MultiStepLR", "milestones": [3]}}
    assert main(["train", "-opt", write_options(opt)]) == 0
    keys = [torch.load(f"experiments/{run}/models/net_g_latest.pth")["params_ema"] for run in ("first", "small")]
    for key, value in keys[0].items():
        torch.testing.assert_close(keys[1][key], value, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("key", ["ldl_opt", "extra_terms"])
def test_a_term_without_the_averaged_weights_it_reads(key, small):
    """Where nothing has checked the options."""
    opt = small("train_rrdb_psnr_x4")
    block = {"type": "ArtifactMapLoss"}
    opt["train"] |= {"ema_decay": 0, key: {"x": block} if key == "extra_terms" else block}
    with pytest.raises(OptionError, match=r"train\.ema_decay: missing, but"):
        build_model(resolved(opt))


def test_a_start_that_cannot_fetch_its_weights_leaves_older_runs(small, write_options, monkeypatch, capsys):
    assert main(["train", "-opt", write_options(small("train_rrdb_psnr_x4"))]) == 0
    before = sorted(path.relative_to("experiments") for path in Path("experiments").rglob("*"))
    opt = small("train_esrgan_x4")
    opt["train"]["perceptual_opt"] |= {"vgg_weights": None}

    def fails() -> Path:
        raise UserError("vgg19: cannot be downloaded")

    monkeypatch.setattr(build, "default_weights", fails)
    assert main(["train", "-opt", write_options(opt)]) == 2
    assert "vgg19: cannot be downloaded" in capsys.readouterr().err
    assert sorted(path.relative_to("experiments") for path in Path("experiments").rglob("*")) == before


def test_check_says_that_vgg_is_missing(small, write_options, monkeypatch, capsys, tmp_path):
    for name in ("GRAMGAN_WEIGHTS", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    opt = small("train_esrgan_x4")
    opt["train"]["perceptual_opt"]["vgg_weights"] = None
    assert main(["check", "-opt", write_options(opt)]) == 0
    line = "train.perceptual_opt.vgg_weights: VGG19 is not on this machine yet; it is downloaded when the run begins"
    assert line in capsys.readouterr().err
    opt["train"]["perceptual_opt"] = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1}}  # BasicSR's
    assert main(["check", "-opt", write_options(opt)]) == 0
    assert line.replace(".vgg_weights", "") in capsys.readouterr().err
