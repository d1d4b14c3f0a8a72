"""Model classes for BasicSR around the training step; needs basicsr."""

from typing import Any

__all__ = ["GramGANModel"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from gramgan_plugin.models.gramgan_model import GramGANModel

    return GramGANModel


# Before any module of this package: importing basicsr runs the registration, which needs `GramGANModel`, so its module
# must not be half imported then.
import basicsr  # noqa: E402, F401
