"""The loop around a model: run folder, data order, resume, logs, validation. Any BasicSR model class trains in it."""

from gramgan_plugin.training.loop import train

__all__ = ["train"]
