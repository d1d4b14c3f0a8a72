import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import cv2
import pytest
import torch

from gramgan_plugin.config import resolve_options
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.training import train
from gramgan_plugin.training.resume import damage, newest_checkpoint


def _train(options: dict[str, Any], **kwargs: Any) -> None:
    train(resolve_options(deepcopy(options), is_train=True, **kwargs))


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _weights(path: Path, key: str = "params") -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)[key]


@pytest.fixture
def run(tiny_options, workdir) -> Path:
    """A finished run of 4 iterations."""
    _train(tiny_options)
    return workdir / "experiments/tiny"


class TestRun:
    def test_what_it_leaves(self, run, workdir):
        files = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
        for iteration in (2, 4):
            assert f"models/net_g_{iteration}.pth" in files
            assert f"models/net_d_{iteration}.pth" in files
            assert f"training_states/{iteration}.state" in files
            assert f"training_states/{iteration}.json" in files
        assert {"models/net_g_latest.pth", "options.yml", "environment.json", "train.log", "metrics.jsonl"} <= files
        assert not [name for name in files if "tmp" in name or name.endswith(".lock.json")]
        assert damage(run / "training_states/4.state") is None
        picture = cv2.imread(str(run / "visualization/astronaut/astronaut_4.png"))
        assert picture.shape == (96, 96, 3)

    def test_metrics(self, run):
        lines = _lines(run / "metrics.jsonl")
        training = [line for line in lines if "l_g_pix" in line]
        assert [line["iter"] for line in training] == [1, 2, 3, 4]
        assert [line["lr"] for line in training[:3]] == pytest.approx([5e-5, 1e-4, 1e-4])
        assert all(line["grad_g_gram"] > 0 for line in training)
        (validation,) = [line for line in lines if "metrics" in line]
        assert validation["dataset"] == "heldout"
        assert validation["iter"] == 4
        assert 0 < validation["metrics"]["psnr"] < 60

    def test_checkpoints_load_back(self, run, tiny_options):
        from basicsr.archs.rrdbnet_arch import RRDBNet

        options = {k: v for k, v in tiny_options["network_g"].items() if k != "type"}
        for key in ("params", "params_ema"):
            RRDBNet(**options).load_state_dict(_weights(run / "models/net_g_4.pth", key))
        assert (run / "models/net_g_latest.pth").read_bytes() == (run / "models/net_g_4.pth").read_bytes()

    def test_the_same_seed_gives_the_same_run(self, run, tiny_options):
        _train(tiny_options | {"name": "again"})
        _train(tiny_options | {"name": "other", "manual_seed": 1})
        first, again, other = (
            _weights(run.parent / name / "models/net_g_4.pth") for name in ("tiny", "again", "other")
        )
        assert all(torch.equal(first[k], again[k]) for k in first)
        assert any(not torch.equal(first[k], other[k]) for k in first)

    def test_tensorboard(self, tiny_options, workdir):
        tiny_options["logger"]["use_tb_logger"] = True
        _train(tiny_options)
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(workdir / "tb_logger/tiny"))
        events.Reload()
        assert {"losses/l_g_pix", "metrics/heldout/psnr", "grad_g_pix"} <= set(events.Tags()["scalars"])

    def test_last_checkpoint_when_the_end_is_not_a_multiple(self, tiny_options, workdir):
        tiny_options["train"]["total_iter"] = 3
        _train(tiny_options)
        assert newest_checkpoint(workdir / "experiments/tiny/training_states").name == "3.state"


class TestResume:
    @pytest.mark.parametrize("reached", [4, 2], ids=["end of an epoch", "middle of an epoch"])
    def test_auto_resume_goes_on_exactly(self, run, tiny_options, workdir, reached):
        if reached == 2:
            (run / "training_states/4.json").unlink()
        longer = deepcopy(tiny_options)
        longer["train"]["total_iter"] = 7
        _train(longer | {"name": "straight"})
        _train(longer, auto_resume=True)
        for net, key in (("net_g", "params"), ("net_g", "params_ema"), ("net_d", "params")):
            straight = _weights(workdir / f"experiments/straight/models/{net}_7.pth", key)
            resumed = _weights(run / f"models/{net}_7.pth", key)
            assert all(torch.equal(straight[k], resumed[k]) for k in straight), (net, key)
        iterations = [line["iter"] for line in _lines(run / "metrics.jsonl") if "l_g_pix" in line]
        assert iterations == [1, 2, 3, 4, *range(reached + 1, 8)]
        assert len(list(workdir.glob("experiments/*"))) == 2, "nothing is archived"

    def test_a_damaged_newest_checkpoint_is_passed_over(self, run, tiny_options, caplog):
        network = run / "models/net_g_4.pth"
        network.write_bytes(network.read_bytes()[:-100])
        assert "net_g_4.pth is not as it was written" in damage(run / "training_states/4.state")
        assert newest_checkpoint(run / "training_states").name == "2.state"
        (run / "training_states/2.json").unlink()
        assert newest_checkpoint(run / "training_states") is None

    def test_auto_resume_without_a_checkpoint_starts(self, tiny_options, workdir):
        _train(tiny_options, auto_resume=True)
        assert (workdir / "experiments/tiny/models/net_g_4.pth").exists()

    def test_resume_state_from_another_run(self, run, tiny_options, workdir):
        tiny_options["name"] = "second"
        tiny_options["train"]["total_iter"] = 5
        tiny_options["path"]["resume_state"] = str(run / "training_states/2.state")
        _train(tiny_options)
        iterations = [line["iter"] for line in _lines(workdir / "experiments/second/metrics.jsonl") if "lr" in line]
        assert iterations == [3, 4, 5]

    def test_exception(self, run, tiny_options):
        tiny_options["path"]["resume_state"] = str(run / "training_states/3.state")
        with pytest.raises(UserError, match=r"path\.resume_state: .*3\.state: no such file"):
            _train(tiny_options)
        (run / "models/net_d_4.pth").write_bytes(b"")
        tiny_options["path"]["resume_state"] = str(run / "training_states/4.state")
        with pytest.raises(UserError, match=r"net_d_4.pth is not as it was written"):
            _train(tiny_options)

    def test_other_optimizers(self, run, tiny_options):
        for block in ("disc_perceptual_opt", "gan_opt", "optim_d"):
            del tiny_options["train"][block]
        del tiny_options["network_d"]
        with pytest.raises(UserError, match=r"does not fit these options' optimizers"):
            _train(tiny_options, auto_resume=True)


class TestOptions:
    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda o: o["train"].pop("total_iter"), "train.total_iter: expected a whole number"),
            (lambda o: o["logger"].update(print_freq=0.5), "logger.print_freq: expected a whole number"),
            (lambda o: o["datasets"].pop("train"), "datasets.train: missing"),
            (lambda o: o["datasets"]["train"].update(batch_size_per_gpu=99), "make no batch of 99"),
            (lambda o: o["datasets"]["train"].update(dataroot_gt="nowhere.lmdb"), "datasets.train.dataroot_gt"),
        ],
    )
    def test_exception(self, tiny_options, workdir, change, message):
        change(tiny_options)
        with pytest.raises(OptionError if "dataroot" not in message else UserError, match=message):
            _train(tiny_options)

    def test_numbers_that_upstream_writes_as_floats(self, tiny_options, workdir):
        tiny_options["val"]["val_freq"] = 4.0
        tiny_options["logger"]["save_checkpoint_freq"] = 4e0
        _train(tiny_options)
        assert (workdir / "experiments/tiny/models/net_g_4.pth").exists()
