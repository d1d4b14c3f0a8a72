import json
import math
from pathlib import Path
from typing import Any

import pytest

from gramgan_plugin.checkpoints.resume import newest_checkpoint
from gramgan_plugin.checkpoints.retain import Checkpoints
from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import describe_file, save_json


class Model:
    """Writes files as a model does, of a few bytes."""

    def __init__(self, run: Path) -> None:
        self.run, self.calls = run, list[tuple[int, Any]]()

    def save(self, epoch: int, iteration: int | str) -> None:
        self.calls.append((epoch, iteration))
        for folder in ("models", "training_states"):
            (self.run / folder).mkdir(parents=True, exist_ok=True)
        networks = [self.run / f"models/net_{net}_{iteration}.pth" for net in "gd"]
        for path in networks:
            path.write_text(f"{path.name} {len(self.calls)}")
        if isinstance(iteration, str):
            return
        state = self.run / f"training_states/{iteration}.state"
        state.write_text("state")
        files = {f"{path.parent.name}/{path.name}": describe_file(path) for path in (state, *networks)}
        save_json({"iter": iteration, "files": files}, state.with_suffix(".json"))


@pytest.fixture
def run(tmp_path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def build(run):
    """Checkpoints of a run with the given options of `logger`, and the metric's."""

    def make(*, rank: int = 0, metric: dict[str, Any] | None = None, **logger: Any) -> Checkpoints:
        paths = {"experiments_root": run, "training_states": run / "training_states", "models": run / "models"}
        opt = {"rank": rank, "logger": logger, "path": {key: str(path) for key, path in paths.items()}}
        return Checkpoints(Model(run), opt | {"val": {"metrics": {"psnr": metric or {}}}})

    return make


def _files(run: Path) -> set[str]:
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}


def _of(*iterations: int) -> set[str]:
    names = {"latest.json"}
    for iteration in iterations:
        names |= {f"training_states/{iteration}.{kind}" for kind in ("state", "json")}
        names |= {f"models/net_{net}_{iteration}.pth" for net in "gd"}
    return names


class TestLatest:
    def test_feature(self, build, run):
        checkpoints = build()
        for iteration in (2, 10):
            checkpoints.save(1, iteration)
            pointer = json.loads((run / "latest.json").read_text())
            assert pointer == {"iter": iteration, "state": f"training_states/{iteration}.state"}
            assert (run / pointer["state"]).is_file()
        assert checkpoints.model.calls == [(1, 2), (1, 10)]
        assert _files(run) == _of(2, 10)

    def test_written_last(self, build, run, monkeypatch):
        checkpoints = build(keep_last=1)
        checkpoints.save(0, 2)

        def refuse(*arguments: Any) -> None:
            raise UserError("full")

        monkeypatch.setattr(checkpoints.model, "save", refuse)
        with pytest.raises(UserError, match="full"):
            checkpoints.save(0, 4)
        assert json.loads((run / "latest.json").read_text())["iter"] == 2
        assert _files(run) == _of(2), "the last good one stays"

    def test_other_ranks_write_nothing(self, build, run):
        checkpoints = build(rank=1, keep_last=1, keep_best="psnr")
        for iteration in (2, 4):
            checkpoints.save(0, iteration)
            checkpoints.validated(iteration, {"a": {"psnr": iteration}})
        assert checkpoints.model.calls == [(0, 2), (0, 4)], "random states are gathered from all"
        assert _files(run) == _of(2, 4) - {"latest.json"}


class TestKeepLast:
    @pytest.mark.parametrize(
        ("keep", "left"), [(None, (1, 2, 9, 10, 11)), (1, (11,)), (3, (9, 10, 11)), (9, (1, 2, 9, 10, 11))]
    )
    def test_feature(self, build, run, keep, left):
        checkpoints = build(keep_last=keep)
        for iteration in (1, 2, 9, 10, 11):
            checkpoints.save(0, iteration)
        assert _files(run) == _of(*left)

    def test_only_whole_ones_count(self, build, run):
        checkpoints = build(keep_last=2)
        checkpoints.save(0, 1)
        checkpoints.save(0, 2)
        (run / "models/net_d_2.pth").write_text("cut")
        checkpoints.save(0, 3)
        assert _files(run) == _of(1, 2, 3), "1 and 3 are the two newest whole ones"
        checkpoints.save(0, 4)
        assert _files(run) == _of(3, 4), "one that is damaged goes when it is too old, too"

    def test_later_iterations_neither_count_nor_go(self, build, run):
        checkpoints = build(keep_last=1)
        checkpoints.save(0, 8)
        checkpoints = build(keep_last=1)  # resumed from an older state
        checkpoints.save(0, 4)
        checkpoints.save(0, 6)
        assert _files(run) == _of(6, 8)

    def test_foreign_files_stay(self, build, run):
        checkpoints = build(keep_last=1)
        checkpoints.save(0, 1)
        foreign = {
            "training_states/1.state.bak": "",
            "training_states/0.state": "of upstream, which writes no list",
            "training_states/notes.json": "{}",
            "training_states/-1.json": "{}",
            "models/net_g_latest.pth": "",
            "models/net_g_11.pth": "",
            "models/mine.pth": "",
            "models/mine_1.pth": "",
            "mine_1.pth": "",
            "models/.mine.tmp-1": "",
        }
        for name, text in foreign.items():
            (run / name).write_text(text)
        manifest = run / "training_states/1.json"
        content = json.loads(manifest.read_text())
        for name in ("models/mine.pth", "mine_1.pth", "models/../mine_1.pth", "/mine_1.pth", "other/mine_1.pth"):
            content["files"][name] = {}
        content["files"]["models/net_g_11.pth"] = {}
        manifest.write_text(json.dumps(content))
        build(keep_last=1).save(0, 2)
        assert _files(run) == _of(2) | set(foreign)

    @pytest.mark.parametrize("nth", [1, 2, 3, 4])
    def test_an_interruption_leaves_nothing_that_looks_whole(self, build, run, monkeypatch, nth):
        checkpoints = build(keep_last=1)
        checkpoints.save(0, 1)
        calls, unlink = [], Path.unlink

        def killed(self: Path, **options: Any) -> None:
            calls.append(self)
            if len(calls) == nth:
                raise KeyboardInterrupt
            unlink(self, **options)

        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):  # noqa: PT012
            patch.setattr(Path, "unlink", killed)
            checkpoints.save(0, 2)
        warnings: list[str] = []

        def report(level: int, line: str) -> None:
            warnings.append(line)

        assert newest_checkpoint(run / "training_states", report) == run / "training_states/2.state"
        (run / "training_states/2.json").unlink()
        assert newest_checkpoint(run / "training_states", report) is None
        (run / "training_states/2.state").unlink()
        build()
        assert _files(run) == _of(2) - {"training_states/2.state", "training_states/2.json"}, "the next start tidies up"

    def test_what_cannot_be_removed(self, build, run, monkeypatch, caplog):
        checkpoints = build(keep_last=1)
        checkpoints.save(0, 1)

        def refuse(self: Path, **options: Any) -> None:
            raise PermissionError(13, "Permission denied", str(self))

        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", refuse)
            checkpoints.save(0, 2)
        assert "1.json: this checkpoint cannot be removed" in caplog.text
        (run / "training_states/2.json").write_text("{}")
        checkpoints.save(0, 3)
        assert (run / "training_states/2.state").exists(), "without a list nothing is removed"

    def test_half_written_files_of_a_killed_run_go(self, build, run):
        build().save(0, 2)
        for name in (
            "training_states/.4.state.tmp-123",
            "training_states/.4.json.tmp-123",
            "models/.net_g_4.pth.tmp-123",
            ".latest.json.tmp-99",
        ):
            (run / name).write_text("half")
        build(rank=1)
        assert len(_files(run) - _of(2)) == 4
        build()
        assert _files(run) == _of(2)


class TestKeepBest:
    def _best(self, run: Path) -> dict[str, Any]:
        best: dict[str, Any] = json.loads((run / "models/best.json").read_text())
        return best

    def test_feature(self, build, run):
        checkpoints = build(keep_best="psnr")
        for iteration, values in enumerate(((20.0, 22.0), (19.0, 22.5), (19.0, 23.5), (21.25, 21.25)), start=1):
            results = {name: {"psnr": value, "ssim": 0.5} for name, value in zip("ab", values, strict=True)}
            checkpoints.validated(iteration, results)
        assert checkpoints.model.calls == [(-1, "best")] * 2, "an equal value is not better"
        assert self._best(run) == {"iter": 3, "metric": "psnr", "value": 21.25, "sets": {"a": 19.0, "b": 23.5}}
        assert (run / "models/net_g_best.pth").read_text() == "net_g_best.pth 2"

    def test_lower_is_better(self, build, run):
        checkpoints = build(keep_best="psnr", metric={"better": "lower"})
        for iteration, value in enumerate((3.0, 4.0, 2.0, 2.5)):
            checkpoints.validated(iteration, {"a": {"psnr": value}})
        assert self._best(run)["value"] == 2.0

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    @pytest.mark.parametrize("better", ["higher", "lower"])
    def test_what_is_no_number_never_wins(self, build, run, value, better):
        checkpoints = build(keep_best="psnr", metric={"better": better})
        checkpoints.validated(1, {"a": {"psnr": value}, "b": {"psnr": 1.0}})
        assert not (run / "models/best.json").exists()
        checkpoints.validated(2, {"a": {"psnr": 5.0}})
        checkpoints.validated(3, {"a": {"psnr": value}})
        assert self._best(run)["iter"] == 2

    def test_goes_on(self, build, run):
        build(keep_best="psnr").validated(1, {"a": {"psnr": 5.0}})
        checkpoints = build(keep_best="psnr")
        checkpoints.validated(2, {"a": {"psnr": 4.0}})
        assert checkpoints.model.calls == []
        checkpoints.validated(3, {"a": {"psnr": 6.0}})
        assert self._best(run)["iter"] == 3

    @pytest.mark.parametrize(
        ("text", "warning"),
        [
            ('{"metric": "ssim", "value": 99}', "of the metric 'ssim'"),
            ('{"metric": "psnr"', "not readable"),
            ("[]", "not readable"),
            ('{"metric": "psnr", "value": NaN}', ""),
        ],
    )
    def test_another_or_damaged_record(self, build, run, caplog, text, warning):
        (run / "models").mkdir(parents=True)
        (run / "models/best.json").write_text(text)
        checkpoints = build(keep_best="psnr")
        assert warning in caplog.text
        checkpoints.validated(2, {"a": {"psnr": 4.0}})
        assert self._best(run)["value"] == 4.0

    def test_off_and_unmeasured(self, build, run, caplog):
        build().validated(1, {"a": {"psnr": 5.0}})
        build(keep_best="psnr").validated(1, {"a": {"ssim": 5.0}})
        assert "this validation gives no 'psnr'" in caplog.text
        assert not (run / "models").exists()
