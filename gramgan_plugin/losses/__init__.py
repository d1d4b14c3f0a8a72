"""Loss modules: thin classes over `gramgan_plugin.functional`, independent of the training step; they open no file."""

from gramgan_plugin.losses.artifact_map_loss import ArtifactMapLoss
from gramgan_plugin.losses.disc_perceptual_loss import DiscPerceptualLoss
from gramgan_plugin.losses.divergence_losses import GromovWassersteinLoss, JensenShannonLoss
from gramgan_plugin.losses.focal_frequency_loss import FocalFrequencyLoss
from gramgan_plugin.losses.gradient_penalty import GradientPenalty
from gramgan_plugin.losses.gram_patch_loss import GramPatchLoss
from gramgan_plugin.losses.masked_ragan_loss import MaskedRaGANLoss
from gramgan_plugin.losses.standard_gan_loss import StandardGANLoss
from gramgan_plugin.losses.vgg_perceptual_loss import VGGPerceptualLoss
from gramgan_plugin.losses.wavelet_loss import WaveletLoss

__all__ = [
    "ArtifactMapLoss",
    "DiscPerceptualLoss",
    "FocalFrequencyLoss",
    "GradientPenalty",
    "GramPatchLoss",
    "GromovWassersteinLoss",
    "JensenShannonLoss",
    "MaskedRaGANLoss",
    "StandardGANLoss",
    "VGGPerceptualLoss",
    "WaveletLoss",
]
