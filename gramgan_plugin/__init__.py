"""Gram-GAN super-resolution for BasicSR: import this package and its classes are in BasicSR's registries.

Importing it loads neither torch nor basicsr. It leaves two hooks, each of which runs when its package is imported
(or at once, if it has been): one makes BasicSR 1.4.2 import with today's torchvision, the other registers this
plugin's networks, losses, models and datasets with BasicSR.
"""

from wrapt import register_post_import_hook

from gramgan_plugin.version import __version__

__all__ = ["__version__"]


def _provide_functional_tensor(module: object) -> None:
    from gramgan_plugin import compat

    compat.provide_functional_tensor()


def _register_with_basicsr(module: object) -> None:
    from gramgan_plugin import registration

    registration.register_all()


register_post_import_hook(_provide_functional_tensor, "torchvision.transforms")
register_post_import_hook(_register_with_basicsr, "basicsr")
