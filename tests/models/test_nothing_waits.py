"""An iteration on a GPU waits for nothing but the log, seen without one: tensors without data stand for those on it."""

from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.functional.constants import constant
from gramgan_plugin.models.build import build_model
from tests.models.model_options import resolved


class NoWaiting(TorchDispatchMode):
    """Refuses what moves memory between the host and the GPU, or reads a value from it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        sources = {leaf.device.type for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        targets = {leaf.device.type for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)}
        moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default) and len(sources | targets) > 1
        if moves and not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])):
            raise AssertionError(f"{func} moves memory and waits: {sources} -> {targets}")
        return result


class NoNewConstants(TorchFunctionMode):
    """Refuses tensors of Python numbers on the GPU, which are moved there from pageable memory."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor) and result.device.type != "cpu":
            raise AssertionError(f"{func.__name__} moves {result.shape} to the GPU")
        return result


@pytest.fixture
def fresh_constants() -> Iterator[None]:
    """No tensor without data is kept for other tests."""
    constant.cache_clear()
    yield
    constant.cache_clear()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_nothing_waits_but_to_log(tiny_options, workdir, precision, fresh_constants, monkeypatch):
    tiny_options["logger"]["print_freq"] = 100
    tiny_options["train"] |= {"precision": precision, "clip_grad_norm_g": 1.0, "accumulate": 2}
    opt = resolved(tiny_options)
    data = TrainingData(opt).batches(0, 0)
    with torch.device("meta"), monkeypatch.context() as patch:  # modules cannot be moved to it
        patch.setattr(torch.nn.Module, "to", lambda module, *_args, **_kwargs: module)
        model = build_model(opt)
    monkeypatch.setattr(type(model), "device", torch.device("meta"))
    # Fused optimizers exist on a GPU alone; a test on one runs the whole.
    monkeypatch.setattr(model.update, "_step", lambda optimizer: None)
    for iteration in (1, 2):
        batch = next(data)[-1]
        with ExitStack() as stack:
            if iteration == 2:
                stack.enter_context(NoWaiting())
                stack.enter_context(NoNewConstants())
            model.feed_data(batch)
            model.optimize_parameters(iteration)
    assert model.output.device.type == "meta"
