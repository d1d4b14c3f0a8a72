"""BasicSR's model classes around the training step; needs basicsr."""

# First of all: when basicsr has been imported, the registration asks for modules of this package, which must not
# be half imported then.
import basicsr  # noqa: F401

# isort: split
from gramgan_plugin.models.build import build_model
from gramgan_plugin.models.gramgan_model import GramGANModel
from gramgan_plugin.models.host import HostFixes
from gramgan_plugin.models.lr_schedulers import CosineRestartWarmupLR

__all__ = ["CosineRestartWarmupLR", "GramGANModel", "HostFixes", "build_model"]
