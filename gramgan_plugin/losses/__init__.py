"""Loss modules: thin classes over `gramgan_plugin.functional`, independent of the training step; they open no file."""

from gramgan_plugin.losses.disc_perceptual_loss import DiscPerceptualLoss
from gramgan_plugin.losses.divergence_losses import GromovWassersteinLoss, JensenShannonLoss
from gramgan_plugin.losses.gram_patch_loss import GramPatchLoss
from gramgan_plugin.losses.masked_ragan_loss import MaskedRaGANLoss
from gramgan_plugin.losses.vgg_perceptual_loss import VGGPerceptualLoss

__all__ = [
    "DiscPerceptualLoss",
    "GramPatchLoss",
    "GromovWassersteinLoss",
    "JensenShannonLoss",
    "MaskedRaGANLoss",
    "VGGPerceptualLoss",
]
