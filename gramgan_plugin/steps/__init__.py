"""The training step and the loss terms it sums, over any networks; knows no framework around it."""

from gramgan_plugin.steps.gan_step import discriminator_step, generator_step
from gramgan_plugin.steps.terms import Batch, Pass, Relativistic, build_terms

__all__ = ["Batch", "Pass", "Relativistic", "build_terms", "discriminator_step", "generator_step"]
