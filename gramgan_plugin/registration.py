"""Registers this plugin's classes with BasicSR. Imports all of them, so that nothing in the package imports it."""

from gramgan_plugin.registries import registries


def register_all() -> None:
    """Put all that our packages list in ``__all__`` into BasicSR's registries. Running it again is harmless."""
    from gramgan_plugin import archs, data, losses, models
    from gramgan_plugin.evaluation import registered_metrics

    known = registries()
    packages = {"arch": archs, "loss": losses, "model": models, "dataset": data, "metric": registered_metrics}
    for kind, package in packages.items():
        for cls in (getattr(package, name) for name in package.__all__):
            if cls.__name__ not in known[kind]:
                known[kind].register(cls)
