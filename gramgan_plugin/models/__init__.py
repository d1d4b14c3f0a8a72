"""BasicSR's model classes around the training step; needs basicsr."""

from typing import Any

__all__ = ["GramGANModel"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(name)
    from gramgan_plugin.models.gramgan_model import GramGANModel

    return GramGANModel


# Before any module of this package: once basicsr is imported, the registration asks for `GramGANModel`, and the module
# that has it must not be half imported then.
import basicsr  # noqa: E402, F401
