"""The best mean of each metric on each set, also after a run is resumed."""

import json
from pathlib import Path

import pytest

from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.training.best_so_far import BestSoFar
from gramgan_plugin.training.logs import RunLog

METRICS = {"psnr": {"type": "calculate_psnr"}, "niqe": {"type": "calculate_niqe"}}


def test_each_set_and_metric_for_itself():
    best = BestSoFar(METRICS)
    assert best.update("a", 10, {"psnr": 30.0, "niqe": 5.0}) == {"psnr": (30.0, 10), "niqe": (5.0, 10)}
    assert best.update("b", 10, {"psnr": 20.0}) == {"psnr": (20.0, 10)}
    assert best.update("a", 20, {"psnr": 29.0, "niqe": 4.0}) == {"psnr": (30.0, 10), "niqe": (4.0, 20)}
    assert best.update("a", 30, {"psnr": 30.0, "niqe": 4.5}) == {"psnr": (30.0, 10), "niqe": (4.0, 20)}
    assert best.update("b", 30, {"psnr": 21.0}) == {"psnr": (21.0, 30)}


@pytest.fixture
def opt(tiny_options, workdir):
    tiny_options["val"]["metrics"] = METRICS
    tiny_options["path"] |= {"experiments_root": "run"}
    (workdir / "run").mkdir()
    return tiny_options | {"rank": 0, "world_size": 1, "root_path": str(workdir)}


def validated(opt, start, *validations):
    log = RunLog(opt, start)
    for iteration, psnr, niqe in validations:
        log.validation(iteration, SetResult("tiny", "Set5", {"psnr": {"a": psnr}, "niqe": {"a": niqe}}))
    log.close()
    return [json.loads(line)["best"] for line in Path("run/metrics.jsonl").read_text().splitlines()]


def test_a_resumed_run_remembers(opt, workdir, caplog):
    """But not what it has lost: validations after the checkpoint that it resumes from."""
    validated(opt, 0, (4, 30.0, 5.0), (8, 31.0, 6.0), (12, 33.0, 1.0))
    with caplog.at_level("INFO", "basicsr"):
        best = validated(opt, 8, (12, 30.5, 5.5))[-1]
    assert best == {"psnr": {"value": 31.0, "iter": 8}, "niqe": {"value": 5.0, "iter": 4}}
    line = "Validation Set5, iter 12: psnr 30.5000 (best 31.0000 at 8), niqe 5.5000 (best 5.0000 at 4)"
    assert line in caplog.text


def test_a_damaged_file_is_no_reason_to_stop(opt, workdir):
    (workdir / "run" / "metrics.jsonl").write_text('{"iter": 4, "dataset": "Set5", "metrics": [1]}\nno JSON\n')
    log = RunLog(opt, 8)
    assert log.best.found == {}
    log.close()
