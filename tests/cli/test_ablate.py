"""`basicsr ablate`: a grid of tiny trainings, each in a process of its own."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
import yaml

from gramgan_plugin.ablation import run_ablation
from gramgan_plugin.archs.rrdbnet_arch import RRDBNet
from gramgan_plugin.cli.main import main
from tests.conftest import tiny_gramgan, write_photo
from tests.messages import assert_message

# Losses other than the content loss are left out, for speed; what is trained makes no difference here.
VARIANTS = {"full": None, "mse": {"train": {"pixel_opt": {"type": "MSELoss"}}}}
MADE = {"dataroot_lq": None, "lq": "bicubic"}
X2 = {"scale": 2, "network_g": {"scale": 2}, "datasets": {"train": MADE, "val": MADE}}
BROKEN = """
import os
import signal
import time
from basicsr.utils.registry import MODEL_REGISTRY
from gramgan_plugin.models.gramgan_model import GramGANModel

@MODEL_REGISTRY.register()
class RaisingModel(GramGANModel):
    def optimize_parameters(self, current_iter):
        raise RuntimeError("the experiment\\x1b[31m is broken")

@MODEL_REGISTRY.register()
class KilledModel(GramGANModel):
    def optimize_parameters(self, current_iter):
        os.kill(os.getpid(), signal.SIGKILL)

@MODEL_REGISTRY.register()
class SlowModel(GramGANModel):
    def optimize_parameters(self, current_iter):
        super().optimize_parameters(current_iter)
        if "SLOW" in os.environ:
            time.sleep(0.3)
"""


def _base(sample_pair: Path, iterations: int = 4) -> dict[str, Any]:
    options = tiny_gramgan(sample_pair)
    del options["network_d"]
    for name in ("optim_d", "gram_patch_opt", "disc_perceptual_opt", "gan_opt"):
        del options["train"][name]
    options["train"]["total_iter"] = iterations
    options["val"]["save_img"] = False
    return options


def _write(folder: Path, options: dict[str, Any], **ablation: Any) -> None:
    """Write base.yml, grid.yml, broken.py and the benchmark sets."""
    content = {"base": "base.yml", "variants": VARIANTS, "test": {"data": "sets", "metrics": ["psnr_y", "ssim_y"]}}
    (folder / "base.yml").write_text(yaml.safe_dump(options, sort_keys=False))
    (folder / "grid.yml").write_text(yaml.safe_dump(content | ablation, sort_keys=False))
    (folder / "broken.py").write_text(BROKEN)
    (folder / "sets/Small/HR").mkdir(parents=True, exist_ok=True)
    for name in ("chelsea", "coffee", "astronaut"):
        write_photo(folder / f"sets/Small/HR/{name}.png", getattr(skimage.data, name)()[60:124, 100:196])


@pytest.fixture(scope="module", autouse=True)
def as_many_threads() -> Iterator[None]:
    """The runs' processes have as many threads as this one, on which the last bits depend."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", str(torch.get_num_threads()))
        yield


@pytest.fixture(scope="module")
def grid(sample_pair: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished grid of two variants and two seeds."""
    folder = tmp_path_factory.mktemp("grid")
    _write(folder, _base(sample_pair), seeds=[0, 1], iterations=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["ablate", "-opt", "grid.yml", "-o", "report"]) == 0
    return folder


@pytest.fixture
def copied(grid: Path, workdir: Path) -> Path:
    """A copy of it, as the working directory."""
    shutil.copytree(grid, workdir, dirs_exist_ok=True)
    return workdir


@pytest.fixture
def small(sample_pair: Path, workdir: Path) -> Callable[..., None]:
    """Writes an ablation file with other keys in the working directory."""

    def write(**ablation: Any) -> None:
        _write(workdir, _base(sample_pair, ablation.pop("total_iter", 2)), **ablation)

    return write


def _ablate(*arguments: str) -> int:
    return main(["ablate", "-opt", "grid.yml", "-o", "report", *arguments])


def _results(path: str | Path) -> dict[str, Any]:
    return json.loads(Path(path, "results.json").read_text())


RUNS = ["tiny-full-s0", "tiny-full-s1", "tiny-mse-s0", "tiny-mse-s1"]


class TestGrid:
    def test_runs(self, grid):
        assert sorted(path.name for path in (grid / "experiments").iterdir()) == RUNS
        for name in RUNS:
            run = grid / "experiments" / name
            assert (run / "training_states/2.json").is_file()
            assert (run / "train.log").is_file()
            options = yaml.safe_load((run / "options.yml").read_text())
            assert options["manual_seed"] == int(name[-1])
            assert options["train"]["pixel_opt"]["type"] == ("MSELoss" if "mse" in name else "L1Loss")
            assert (options["train"]["total_iter"], options["val"]["val_freq"]) == (2, 2)

    def test_as_train_alone(self, grid, workdir):
        """A run is what `basicsr train` makes of the same options."""
        shutil.copy(grid / "report/runs/tiny-mse-s1.yml", workdir)
        assert main(["train", "-opt", "tiny-mse-s1.yml"]) == 0
        alone, run = (
            torch.load(folder / "experiments/tiny-mse-s1/models/net_g_2.pth", weights_only=True)
            for folder in (workdir, grid)
        )
        assert all(torch.equal(alone[key][name], run[key][name]) for key in run for name in run[key])

    def test_numbers_of_the_benchmark(self, grid, workdir):
        """The averaged weights of each run, measured by `basicsr benchmark`."""
        rows = _results(grid / "report")["rows"]
        models = {name: grid / "experiments" / name / "models/net_g_latest.pth" for name in RUNS}
        for name, weights in {**models, "bicubic": "bicubic"}.items():
            arguments = ("--data", str(grid / "sets"), "--metrics", "psnr_y,ssim_y", "-o", name)
            assert main(["benchmark", "-m", str(weights), *arguments]) == 0
            theirs = {(row["set"], row["metric"]): row["per_image"] for row in _results(name)["rows"]}
            own = [row for row in rows if name in (row["run"], row["variant"])]
            ours = {(row["set"], row["metric"]): row["per_image"] for row in own}
            assert ours == theirs
            assert len(ours["Small", "psnr_y"]) == 3

    def test_summary(self, grid):
        found = _results(grid / "report")
        values = {(row["variant"], row["seed"]): row["per_image"] for row in found["rows"] if row["metric"] == "psnr_y"}
        (mse,) = [row for row in found["over_seeds"] if row["variant"] == "mse" and row["metric"] == "psnr_y"]
        means = [np.mean(list(values["mse", seed].values())) for seed in (0, 1)]
        assert [mse["per_seed"][seed] for seed in "01"] == pytest.approx(means)
        assert mse["mean"] == pytest.approx(np.mean(means))
        assert mse["std"] == pytest.approx(np.std(means, ddof=1))
        differences = {one["model"]: one for one in found["differences"] if one["metric"] == "psnr_y"}
        assert differences.keys() == {"bicubic", "mse"}
        difference = differences["mse"]
        assert difference["baseline"] == "full"
        apart = [
            np.mean([values["mse", s][image] for s in (0, 1)]) - np.mean([values["full", s][image] for s in (0, 1)])
            for image in values["mse", 0]
        ]
        assert difference["difference"]["mean"] == pytest.approx(np.mean(apart))
        assert difference["difference"]["low"] <= np.mean(apart) <= difference["difference"]["high"]
        assert {run["state"] for run in found["runs"]} == {"finished"}

    def test_page(self, grid):
        page = (grid / "report/index.html").read_text()
        assert 'href="benchmark/index.html"' in page
        assert "data:image/png;base64," in page
        assert all(name in page for name in RUNS)
        assert re.search(r"\d+\.\d\d ± \d+\.\d\d", page)
        assert "<code>train.pixel_opt.type: &#34;MSELoss&#34;</code>" in page
        assert cv2.imread(str(grid / "report/curves.png")).std() > 0
        benchmark = (grid / "report/benchmark/index.html").read_text()
        assert all(f"{variant} s{seed}" in benchmark for variant in VARIANTS for seed in (0, 1))
        for path in (grid / "report").rglob("*.html"):
            assert str(grid) not in path.read_text(), "no paths of this machine"


class TestAgain:
    def test_nothing_is_repeated(self, copied, capsys):
        before = {path: path.stat().st_mtime_ns for path in Path("experiments").rglob("*") if path.is_file()}
        results = _results("report")
        assert _ablate() == 0
        out = capsys.readouterr().out
        assert [f"{n} of 4  {name} was finished before" for n, name in enumerate(RUNS, 1)] == out.splitlines()[:4]
        after = {path: path.stat().st_mtime_ns for path in Path("experiments").rglob("*") if path.is_file()}
        assert after == before
        again = _results("report")
        assert {key: value for key, value in again.items() if key != "runs"} == {
            key: value for key, value in results.items() if key != "runs"
        }

    def test_other_options(self, copied, capsys):
        content = yaml.safe_load(Path("grid.yml").read_text())
        content["variants"]["mse"]["train"]["optim_g"] = {"lr": 0.5}
        Path("grid.yml").write_text(yaml.safe_dump(content))
        assert _ablate() == 2
        err = capsys.readouterr().err
        for seed in (0, 1):
            line = (
                rf"^basicsr ablate: experiments/tiny-mse-s{seed} .*other options: train.optim_g.lr was 0.0001, is 0.5;"
            )
            assert re.search(line, err, re.MULTILINE)
        assert "full" not in err

    def test_sigterm_during_the_report(self, copied, capsys, monkeypatch):
        monkeypatch.setattr(run_ablation, "write_ablation_report", lambda *_: signal.raise_signal(signal.SIGTERM))
        assert _ablate() == 75
        assert "stopped by SIGTERM; all runs are trained" in capsys.readouterr().err

    def test_a_run_without_curves(self, copied, capsys):
        Path("experiments/tiny-mse-s0/metrics.jsonl").write_text("no line of metrics\n{}\n")
        assert _ablate() == 3
        out = capsys.readouterr().out
        assert "tiny-mse-s0 has no curves: experiments/tiny-mse-s0/metrics.jsonl, line 1: " in out
        assert len(_results("report")["rows"]) == 10


class TestStart:
    @pytest.fixture
    def from_trained(self, copied) -> Callable[..., dict[str, Any]]:
        """Runs an ablation from other weights, and returns metric -> values of the row `start`, if there is one."""

        def run(code: int, content: dict[str, Any] | bytes, **path: Any) -> dict[str, Any]:
            torch.save(content, "mine.pth") if isinstance(content, dict) else Path("mine.pth").write_bytes(content)
            grid = yaml.safe_load(Path("grid.yml").read_text())
            grid |= {"start_from": "mine.pth", "seeds": [0], "name": "second", "common": {"path": path}}
            grid["variants"] = {"full": None}
            Path("grid.yml").write_text(yaml.safe_dump(grid, sort_keys=False))
            assert _ablate() == code
            rows = _results("report")["rows"]
            return {row["metric"]: row["per_image"] for row in rows if row["variant"] == "start"}

        return run

    @pytest.mark.parametrize(("key", "run"), [({}, "s0"), ({"param_key_g": "params_ema"}, "s1")])
    def test_its_row(self, copied, from_trained, key, run):
        """Of the weights that training takes: `params` unless a key is named."""
        weights = {name: self._averaged(f"tiny-mse-{name}") for name in ("s0", "s1")}
        rows = [row for row in _results("report")["rows"] if row["run"] == f"tiny-mse-{run}"]
        measured = {row["metric"]: row["per_image"] for row in rows}
        assert from_trained(0, {"params": weights["s0"], "params_ema": weights["s1"]}, **key) == measured

    def test_a_long_name(self, copied, from_trained):
        Path("w").mkdir()
        long = f"w/{'x' * 250}.pth"
        torch.save({"params": self._averaged("tiny-mse-s0")}, long)
        assert from_trained(0, b"", pretrain_network_g=long).keys() == {"psnr_y", "ssim_y"}

    @pytest.mark.parametrize("what", ["gone", "damaged"])
    def test_it_cannot_be_measured(self, copied, from_trained, what, capsys):
        """After the runs have ended the report names it, and has the rest."""
        assert from_trained(0, {"params": self._averaged("tiny-mse-s0")}).keys() == {"psnr_y", "ssim_y"}
        if what == "gone":
            Path("mine.pth").unlink()
        else:
            Path("mine.pth").write_bytes(b"damaged")
        assert _ablate() == 3
        assert "start is not measured: mine.pth" in capsys.readouterr().out
        assert {row["variant"] for row in _results("report")["rows"]} == {"bicubic", "full"}

    def test_another_scale(self, copied, from_trained, capsys):
        network = RRDBNet(num_in_ch=3, num_out_ch=3, num_feat=8, num_block=1, num_grow_ch=4, num_upsample=1)
        assert from_trained(3, {"params": network.state_dict()}, strict_load_g=False) == {}
        assert "start is not measured: mine.pth: has scale 2" in capsys.readouterr().out

    @staticmethod
    def _averaged(name: str) -> dict[str, torch.Tensor]:
        found = torch.load(f"experiments/{name}/models/net_g_latest.pth", weights_only=True)
        averaged: dict[str, torch.Tensor] = found["params_ema"]
        return averaged


class TestFailures:
    def test_the_report_has_the_rest(self, copied, capsys):
        content = yaml.safe_load(Path("grid.yml").read_text())
        variants = {"raises": {"model_type": "RaisingModel"}, **VARIANTS}
        Path("grid.yml").write_text(yaml.safe_dump(content | {"variants": variants, "seeds": [0]}, sort_keys=False))
        assert _ablate("--plugin", "broken") == 3
        out = capsys.readouterr().out
        assert "1 of 3  tiny-raises-s0 begins\n1 of 3  tiny-raises-s0 failed after 0:00:" in out
        assert out.count("begins") == 1
        assert "tiny-raises-s0 is missing: RuntimeError: the experiment\\x1b[31m is broken; " in out
        assert "the baseline raises has no finished run" in out
        found = _results("report")
        assert [run["state"] for run in found["runs"]] == ["failed", "finished", "finished"]
        assert {row["model"] for row in found["rows"]} == {"bicubic", "full", "mse"}
        assert {row["std"] for row in found["over_seeds"]} == {None}
        assert "the experiment" in Path("report/index.html").read_text()
        assert "Traceback" in Path("report/runs/tiny-raises-s0.log").read_text()

    def test_killed_by_the_system(self, small, capsys):
        small(variants={"dies": {"model_type": "KilledModel"}})
        assert _ablate("--plugin", "broken") == 3
        lines = capsys.readouterr().err.splitlines()
        assert_message(lines[0], "basicsr ablate: tiny-dies-s0 is missing", "SIGKILL", "memory")
        assert lines[1].startswith("basicsr ablate: no run is finished")


@pytest.fixture
def start(workdir: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Starts the command in a process of its own; iterations are slow there."""
    started = []

    def run() -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "gramgan_plugin", "ablate", "-opt", "grid.yml", "-o", "report"]
        environment = {**os.environ, "SLOW": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
        started.append(
            subprocess.Popen(
                [*command, "--plugin", "broken"],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield run
    for one in started:
        one.kill()
        one.communicate()


def _wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "too slow"
        time.sleep(0.02)


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_stopped_and_killed(small, start, capsys):
    """SIGTERM, then SIGKILL; what is resumed ends in the bits of a run without either."""
    small(variants={"slow": {"model_type": "SlowModel"}}, total_iter=12)
    state = Path("experiments/tiny-slow-s0/training_states").joinpath
    stopped = start()
    _wait_for(lambda: state("2.json").is_file())
    stopped.send_signal(signal.SIGTERM)
    out, err = stopped.communicate(timeout=120)
    assert stopped.returncode == 75, err
    assert "1 of 1  tiny-slow-s0 is stopped after" in out
    assert "stopped by SIGTERM; 0 of 1 runs are finished" in err
    last = max(int(path.stem) for path in state().glob("*.json") if path.stem.isdecimal())
    assert 2 <= last < 10
    killed = start()
    _wait_for(lambda: state(f"{last - last % 2 + 2}.json").is_file())
    child = json.loads(Path("experiments/tiny-slow-s0/.lock.json").read_text())["pid"]
    assert _is_running(child)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    _wait_for(lambda: not _is_running(child))
    assert not state("12.json").is_file()
    assert _ablate("--plugin", "broken") == 0
    starts = [json.loads(line) for line in Path("experiments/tiny-slow-s0/starts.jsonl").read_text().splitlines()]
    assert [one["iteration"] for one in starts][:2] == [0, last]
    assert starts[2]["iteration"] > last
    straight = ["--plugin", "broken", "--force_yml", "name=straight"]
    assert main(["train", "-opt", "report/runs/tiny-slow-s0.yml", *straight]) == 0
    one, other = (
        torch.load(f"experiments/{name}/models/net_g_latest.pth", weights_only=True)
        for name in ("tiny-slow-s0", "straight")
    )
    assert all(torch.equal(one[key][name], other[key][name]) for key in other for name in other[key])
    capsys.readouterr()
    assert _ablate("--plugin", "broken") == 0
    assert "tiny-slow-s0 was finished before" in capsys.readouterr().out, "a resumed run has the same options"


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "where", "kind"),
        [
            (
                {"variants": {"full": None, "mse": {"train": {"pixle_opt": {}}}}},
                "variants.mse: train.pixle_opt",
                "did you mean 'pixel_opt'",
            ),
            ({"common": {"train": {"pixle_opt": {}}}}, "all variants: train.pixle_opt", "did you mean 'pixel_opt'"),
            ({"variants": {"full": {"train": {"total_iter": "x"}}}}, "all variants: train.total_iter", "whole number"),
            ({"start_from": "no.pth"}, "all variants: path.pretrain_network_g: no.pth", "no such checkpoint"),
            ({"base": "no.yml"}, "no.yml", "no such option file"),
            ({"base": "grid.yml"}, "name", "None cannot be a folder's name"),
            ({"test": {"data": "sets", "sets": ["Set5"]}}, "sets", "no set 'Set5'; there are Small"),
            ({"test": {"data": "nowhere"}}, "nowhere", "no such folder"),
            (
                {"test": {"data": "sets", "metrics": ["lpips"]}},
                "test.metrics: lpips",
                "`basicsr weights fetch alexnet`",
            ),
            ({"common": {"num_gpu": 2}}, "all variants: num_gpu", "one GPU"),
            ({"variants": {"full": None, "x2": X2}}, "variants.x2: scale", "2, others have 4"),
            (
                {"common": {"network_g": {"type": "EDVR", "num_feat": 8}, "train": {"ema_decay": 0}}},
                "variants.full: network_g",
                "the benchmark cannot read it",
            ),
        ],
    )
    def test_found_before_anything_begins(self, small, capsys, change, where, kind):
        small(**change)
        assert _ablate() == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert_message(line.replace(f"{Path.cwd()}/", ""), f"basicsr ablate: {where}", kind)
        assert not Path("experiments").exists()
        assert not Path("report").exists()

    def test_all_of_them_at_once(self, small, capsys):
        small(variants={"a": {"train": {"lr": 1}}, "b": {"num_gpu": "all"}, "c": None})
        assert _ablate() == 2
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(": ")[1:3] for line in lines] == [["variants.a", "train.lr"], ["variants.b", "num_gpu"]]
