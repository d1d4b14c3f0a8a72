import builtins
import json
import logging
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gramgan_plugin.errors import OptionError
from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.training import logs
from gramgan_plugin.training.curves import read_metrics
from gramgan_plugin.training.logs import RunLog, images_per_iteration, line_values, run_logging

SECONDS = {"time": 0.5, "data_time": 0.01}
LOG = {
    "l_g_pix": 0.5,
    "l_d_real": 0.25,
    "l_d_fake": 0.5,
    "grad_g_pix": 0.1,
    "grad_norm_d": 2.0,
    "out_d_real": 1.0,
    "out_d_fake": -1.0,
    "d_accuracy": 0.75,
    "mask_share": 0.9,
    "gram_original": 0.5,
    "sr_contrast": 0.98,
}


@pytest.fixture
def opt(options_to_log) -> dict[str, Any]:
    return options_to_log


@pytest.fixture
def written(opt, caplog):
    """Gives the lines of metrics.jsonl and those of the log."""
    caplog.set_level(logging.INFO, "basicsr")
    logging.getLogger("basicsr").propagate = True

    def read() -> tuple[list[dict[str, Any]], list[str]]:
        def refuse(name: str) -> None:
            pytest.fail(f"{name} is no JSON")

        text = Path("experiments/tiny/metrics.jsonl").read_text()
        return [json.loads(line, parse_constant=refuse) for line in text.splitlines()], caplog.messages

    return read


class TestLogLine:
    def test_upstreams_form(self, opt, written):
        log = RunLog(opt, 0)
        log.training(3, 20, [1e-4, 2e-4], SECONDS, LOG)
        log.close()
        (line,) = written()[1]
        assert re.fullmatch(
            r"\[epoch:  3, iter:      20, lr:\(1\.000e-04,2\.000e-04\)\] \[eta: 0:00:0\d, time \(data\): 0\.500 "
            r"\(0\.010\)\] l_g_pix: 5\.0000e-01 l_d_real: 2\.5000e-01 l_d_fake: 5\.0000e-01 d_accuracy: 7\.5000e-01",
            line,
        ), line

    def test_what_it_shows(self):
        assert list(line_values(LOG)) == ["l_g_pix", "l_d_real", "l_d_fake", "d_accuracy"]
        upstream = {"l_g_pix": 1.0, "l_d_real": 1.0, "out_d_real": 1.0, "out_d_fake": 1.0}
        assert line_values(upstream) == upstream
        assert list(line_values({"skipped_steps": 2.0, "loss_scale": 8.0, "theirs": 1.0})) == [
            "skipped_steps",
            "theirs",
        ]


class TestEscaping:
    def test_no_control_characters_reach_terminal_or_log(self, workdir, capfd):
        with run_logging(workdir / "train.log") as log:
            log.warning("a\x1b[2Jb\u202ec\nnext line")
        for text in (capfd.readouterr().err, (workdir / "train.log").read_text()):
            assert "a\\x1b[2Jb\\u202ec\nnext line" in text


class TestMetrics:
    def test_all_is_there(self, opt, written):
        log = RunLog(opt, 0)
        log.training(0, 10, [1e-4], SECONDS, LOG)
        log.validation(10, SetResult("tiny", "Set5", {"psnr": {"a": 30.0}}))
        log.close()
        training, validation = written()[0]
        assert training == {"iter": 10, "epoch": 0, "lr": 1e-4, **SECONDS, "images_per_s": 8.0, **LOG}
        best = {"psnr": {"value": 30.0, "iter": 10}}
        assert validation == {"iter": 10, "dataset": "Set5", "metrics": {"psnr": 30.0}, "best": best}

    def test_what_is_no_number_is_still_json(self, opt, written):
        log = RunLog(opt, 0)
        log.training(0, 1, [1e-4], {"time": 0.0, "data_time": 0.0}, {"l_g_pix": float("nan"), "l_g_x": float("inf")})
        log.validation(1, SetResult("tiny", "Set5", {"psnr": {"a": 30.0}}, left_out={"psnr": {"b": "it is nan"}}))
        log.close()
        lines, said = written()
        assert (lines[0]["l_g_pix"], lines[0]["l_g_x"]) == (None, None)
        assert lines[1]["metrics"] == {"psnr": 30.0}
        assert lines[1]["left_out"] == {"psnr": 1}
        assert "Set5: b is left out of the mean of psnr: it is nan" in said[1]
        assert "psnr 30.0000 (1 of 2 images)" in said[2]
        assert "l_g_pix: nan l_g_x: inf" in said[0], "the log names it"
        metrics = read_metrics(Path("experiments/tiny/metrics.jsonl"))
        assert set(metrics.training) == {"lr", "time", "data_time", "l_g_pix", "l_g_x"}

    def test_tensors_of_a_third_partys_model(self, opt, written):
        log = RunLog(opt, 0)
        log.training(0, 1, [1e-4], SECONDS, {"l_x": torch.tensor(0.5), "l_y": torch.ones(1), "count": 3})
        log.close()
        (line,) = written()[0]
        assert (line["l_x"], line["l_y"], line["count"]) == (0.5, 1.0, 3)

    def test_going_on_after_a_kill(self, opt, written):
        file = Path("experiments/tiny/metrics.jsonl")
        file.write_text('{"iter": 1, "l_g_pix": 0.5}\n{"iter": 2, "l_g_p')
        log = RunLog(opt, 1)
        log.training(0, 2, [1e-4], SECONDS, LOG)
        log.close()
        assert [line["iter"] for line in written()[0]] == [1, 2]

    def test_other_ranks_write_nothing(self, opt, written, monkeypatch):
        monkeypatch.setattr(logs, "WandbRun", None)
        opt |= {"rank": 1}
        opt["logger"] = {"use_tb_logger": True, "wandb": {"project": "x"}}
        log = RunLog(opt, 0)
        log.tick()
        log.training(0, 1, [1e-4], SECONDS, LOG)
        log.validation(1, SetResult("tiny", "Set5", {"psnr": {"a": 30.0}}))
        log.close()
        assert not list(Path().rglob("metrics.jsonl"))
        assert not Path("tb_logger").exists()

    @pytest.mark.parametrize(
        ("change", "images"),
        [({}, 4), ({"num_gpu": 2}, 8), ({"dist": True, "world_size": 3, "num_gpu": 8}, 12)],
    )
    def test_images_per_iteration(self, opt, change, images):
        assert images_per_iteration(opt | change) == images


class TestHealth:
    def test_its_warnings_are_logged(self, opt, written, monkeypatch):
        seen = []

        class Sees:
            def __init__(self, train):
                assert train is opt["train"] or train == opt["train"]

            def check(self, iteration, log):
                seen.append((iteration, dict(log)))
                return ["D has won", "and more"]

        monkeypatch.setattr(logs, "Health", Sees)
        log = RunLog(opt, 0)
        log.training(0, 1500, [1e-4], SECONDS, LOG)
        log.close()
        assert seen == [(1500, LOG)]
        assert written()[1][1:] == ["iter 1,500: D has won", "iter 1,500: and more"]


class TestBar:
    def test_on_a_terminal(self, opt, monkeypatch):
        shown = []

        class Bar:
            def __init__(self, *arguments):
                shown.append(arguments)

            def tick(self):
                shown.append("tick")

            def show(self, rate, log):
                shown.append((rate, log))

            def close(self):
                shown.append("close")

        monkeypatch.setattr(logs, "ProgressBar", Bar)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        log = RunLog(opt, 7)
        log.tick()
        log.training(0, 8, [1e-4], SECONDS, {"l_g_pix": 1.0})
        log.close()
        assert shown == [("tiny", 100, 7), "tick", (1e-4, {"l_g_pix": 1.0}), "close"]

    def test_none_elsewhere(self, opt, monkeypatch):
        monkeypatch.setattr(sys.stderr, "isatty", lambda: False)
        log = RunLog(opt, 0)
        log.tick()
        log.close()
        assert log.bar is None


class TestTensorBoard:
    def test_points(self, opt, workdir):
        opt["logger"]["use_tb_logger"] = True
        log = RunLog(opt, 0)
        log.training(0, 10, [1e-4], SECONDS, LOG)
        log.validation(10, SetResult("tiny", "Set5", {"psnr": {"a": 30.0}}))
        log.close()
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(workdir / "tb_logger/tiny"))
        events.Reload()
        tags = {"losses/l_g_pix", "grad_g_pix", "d_accuracy", "lr", "images_per_s", "metrics/Set5/psnr"}
        assert tags <= set(events.Tags()["scalars"])
        assert [(point.step, point.value) for point in events.Scalars("losses/l_g_pix")] == [(10, 0.5)]

    def test_an_older_runs_events_are_put_aside(self, opt, workdir):
        opt["logger"]["use_tb_logger"] = True
        for start in (0, 5, 0):
            RunLog(opt, start).close()
        assert len(list(workdir.glob("tb_logger/tiny_archived_*"))) == 1
        assert len(list(workdir.glob("tb_logger/tiny/*"))) == 1

    def test_without_the_package(self, opt, monkeypatch):
        own = builtins.__import__

        def refuse(name, *arguments, **options):
            if name == "torch.utils.tensorboard":
                raise ImportError(name)
            return own(name, *arguments, **options)

        monkeypatch.setattr(builtins, "__import__", refuse)
        opt["logger"]["use_tb_logger"] = True
        with pytest.raises(OptionError, match=r"logger\.use_tb_logger: .* pip install tensorboard"):
            RunLog(opt, 0)


class TestRunLogging:
    def test_file_and_console(self, tmp_path, capsys):
        with run_logging(tmp_path / "new/train.log") as logger:
            logger.info("one")
        with run_logging(tmp_path / "new/train.log", rank=1) as logger:
            logger.info("two")
            logger.error("three")
        assert "INFO: one" in (tmp_path / "new/train.log").read_text()
        assert "t" not in (tmp_path / "new/train.log").read_text().replace("INFO", "").rpartition(":")[2]
        printed = capsys.readouterr().err
        assert ["INFO: one" in printed, "two" in printed, "ERROR: three" in printed] == [True, False, True]
