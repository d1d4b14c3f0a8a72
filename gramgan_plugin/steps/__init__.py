"""The training step and the loss terms it sums, over any networks; knows no framework around it."""

from gramgan_plugin.steps.gan_step import combine_logs, discriminator_step, generator_step
from gramgan_plugin.steps.terms import Batch, Pass, Relativistic, build_terms
from gramgan_plugin.steps.update import Update

__all__ = [
    "Batch",
    "Pass",
    "Relativistic",
    "Update",
    "build_terms",
    "combine_logs",
    "discriminator_step",
    "generator_step",
]
