import logging
import os
import random
from typing import Any

import numpy as np
import pytest
import torch

from gramgan_plugin.cli.failures import explain
from gramgan_plugin.training.reproducible import seed_everything, torch_settings
from tests.messages import assert_message

CUBLAS = "CUBLAS_WORKSPACE_CONFIG"


def _opt(**changes: Any) -> dict[str, Any]:
    return {"num_gpu": 0, "dist": False, "world_size": 1, "train": {}, **changes}


def _settings() -> dict[str, Any]:
    return {
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn_only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
        "benchmark": torch.backends.cudnn.benchmark,
        "matmul": torch.backends.cuda.matmul.allow_tf32,
        "cudnn": torch.backends.cudnn.allow_tf32,
        CUBLAS: os.environ.get(CUBLAS),
    }


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.delenv(CUBLAS, raising=False)
    before = _settings()
    yield
    assert _settings() == before


class TestSeedEverything:
    def test_feature(self):
        def draw(seed: int) -> tuple[float, float, float]:
            seed_everything(seed)
            return random.random(), np.random.rand(), torch.rand(()).item()

        assert draw(3) == draw(3)
        assert all(a != b for a, b in zip(draw(3), draw(4), strict=True))

    def test_the_largest_seed_of_the_last_rank(self):
        seed_everything(2**32 - 1 + 7)


class TestTorchSettings:
    def test_as_a_run_has_them_by_default(self):
        with torch_settings(_opt()):
            assert _settings() == {
                "deterministic": False,
                "warn_only": False,
                "cudnn.deterministic": False,
                "benchmark": True,
                "matmul": True,
                "cudnn": True,
                CUBLAS: None,
            }

    def test_deterministic(self):
        with torch_settings(_opt(deterministic=True, train={"tf32": False})):
            assert _settings() == {
                "deterministic": True,
                "warn_only": False,
                "cudnn.deterministic": True,
                "benchmark": False,
                "matmul": False,
                "cudnn": False,
                CUBLAS: ":4096:8",
            }

    def test_the_users_workspace_stays(self, monkeypatch):
        monkeypatch.setenv(CUBLAS, ":16:8")
        with torch_settings(_opt(deterministic=True)):
            assert os.environ[CUBLAS] == ":16:8"
        assert os.environ.pop(CUBLAS) == ":16:8"

    def test_put_back_after_an_error(self):
        with pytest.raises(KeyError), torch_settings(_opt(deterministic=True)):
            raise KeyError

    def test_what_was_set_before_is_put_back(self):
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cuda.matmul.allow_tf32 = True
        before = _settings()
        try:
            with torch_settings(_opt(train={"tf32": False})):
                assert _settings() != before
            assert _settings() == before
        finally:
            torch.use_deterministic_algorithms(False)
            torch.backends.cuda.matmul.allow_tf32 = False

    @pytest.mark.parametrize(
        ("opt", "line"),
        [
            (_opt(), "CPU, torch {torch}, {threads} threads, TF32 on, cudnn.benchmark on, deterministic off"),
            (
                _opt(deterministic=True, train={"tf32": False}, dist=True, world_size=2),
                "CPU in 2 processes, torch {torch}, {threads} threads, TF32 off, cudnn.benchmark off, deterministic on",
            ),
        ],
    )
    def test_one_line_states_them(self, caplog, opt, line):
        with caplog.at_level(logging.INFO, "basicsr"), torch_settings(opt):
            pass
        assert caplog.messages == [line.format(torch=torch.__version__, threads=torch.get_num_threads())]

    def test_an_operation_that_is_not_deterministic_is_named(self):
        with torch_settings(_opt(deterministic=True)), pytest.raises(RuntimeError) as caught:
            torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
        (line,) = explain(caught.value, "train")
        assert_message(line, "deterministic", "no deterministic put_")

    def test_cublas_with_another_workspace(self):
        # What torch says on a GPU.
        error = RuntimeError(
            "Deterministic behavior was enabled with either `torch.use_deterministic_algorithms(True)` or "
            "`at::Context::setDeterministicAlgorithms(true)`, but this operation is not deterministic because it uses "
            "CuBLAS and you have CUDA >= 10.2. To enable deterministic behavior in this case, you must set an "
            "environment variable before running your PyTorch application"
        )
        (line,) = explain(error, "train")
        assert_message(line, "deterministic", "CUBLAS_WORKSPACE_CONFIG")
        assert explain(RuntimeError("some tensor is not deterministic"), "train") is None
