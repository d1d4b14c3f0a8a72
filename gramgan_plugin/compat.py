"""Every workaround for an old dependency, each with the upstream issue and when it can be removed."""

import importlib.util
import sys
import types
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing the package imports this module, and must not import torch
    from torch import Tensor, nn

FUNCTIONAL_TENSOR = "torchvision.transforms.functional_tensor"

# Module -> why it is provided, for `basicsr doctor`.
REASONS = {FUNCTIONAL_TENSOR: "torchvision 0.17 removed it, and BasicSR 1.4.2 imports it"}


def provide_functional_tensor() -> bool:
    """Let ``basicsr.data.degradations`` import ``rgb_to_grayscale`` from where torchvision kept it before 0.17.

    torchvision 0.17 removed the module ``torchvision.transforms.functional_tensor``; BasicSR 1.4.2, its last
    release, imports it, so that ``import basicsr`` fails (https://github.com/XPixelGroup/BasicSR/issues/663).
    Remove it when a release of BasicSR imports from ``torchvision.transforms.functional``.

    Returns:
        True if the module had to be provided, False if this torchvision still has it.
    """
    if FUNCTIONAL_TENSOR in sys.modules or importlib.util.find_spec(FUNCTIONAL_TENSOR) is not None:
        return FUNCTIONAL_TENSOR in shims_in_force()
    from torchvision.transforms.functional import rgb_to_grayscale

    module = types.ModuleType(FUNCTIONAL_TENSOR, "Provided by gramgan_plugin.compat for BasicSR 1.4.2.")
    module.rgb_to_grayscale = rgb_to_grayscale  # type: ignore[attr-defined]
    module.__provided_by__ = "gramgan_plugin.compat"  # type: ignore[attr-defined]
    sys.modules[FUNCTIONAL_TENSOR] = module
    return True


def shims_in_force() -> list[str]:
    """Return the names of the missing modules that this file has provided."""
    return [name for name in REASONS if hasattr(sys.modules.get(name), "__provided_by__")]


def total_norm(gradients: "Sequence[Tensor]") -> "Tensor":
    """Return the L2 norm of several tensors together: ``torch.nn.utils.get_total_norm``, which is in torch from 2.6 on.

    Remove it, with the next function, when MMagic runs on that (https://github.com/open-mmlab/mmagic, whose last
    release is 1.2.0 of December 2023; the operators of mmcv 2.1, which it needs, are built with torch 2.1).
    """
    import torch

    if hasattr(torch.nn.utils, "get_total_norm"):
        return torch.nn.utils.get_total_norm(gradients)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(list(gradients))))


def clip_by_norm(parameters: "Sequence[nn.Parameter]", max_norm: float, norm: "Tensor") -> None:
    """Scale gradients of a known norm down to ``max_norm``: ``torch.nn.utils.clip_grads_with_norm_`` of torch 2.6."""
    import torch

    if hasattr(torch.nn.utils, "clip_grads_with_norm_"):
        torch.nn.utils.clip_grads_with_norm_(parameters, max_norm, norm)
        return
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], factor)
