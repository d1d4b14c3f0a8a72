"""Pure functions on tensors: no registry, no options files, no state."""

from gramgan_plugin.functional.candidates import (
    KINDS,
    CandidateSet,
    affine_warp,
    candidate_set,
    downsampled,
    random_draw,
    random_theta,
)
from gramgan_plugin.functional.divergences import gromov_wasserstein, jensen_shannon
from gramgan_plugin.functional.gram import describe_patches, gram_difference, gram_matrix, gram_vectors
from gramgan_plugin.functional.patches import extract_patches, patch_centres, patch_vectors
from gramgan_plugin.functional.region_mask import luma, region_mask, region_std
from gramgan_plugin.functional.relativistic import (
    relativistic_discriminator_loss,
    relativistic_generator_loss,
)
from gramgan_plugin.functional.texture import choose_targets, gram_patch_loss
from gramgan_plugin.functional.texture_options import TextureOptions
from gramgan_plugin.functional.texture_targets import Database, FeatureMap, Targets

__all__ = [
    "KINDS",
    "CandidateSet",
    "Database",
    "FeatureMap",
    "Targets",
    "TextureOptions",
    "affine_warp",
    "candidate_set",
    "choose_targets",
    "describe_patches",
    "downsampled",
    "extract_patches",
    "gram_difference",
    "gram_matrix",
    "gram_patch_loss",
    "gram_vectors",
    "gromov_wasserstein",
    "jensen_shannon",
    "luma",
    "patch_centres",
    "patch_vectors",
    "random_draw",
    "random_theta",
    "region_mask",
    "region_std",
    "relativistic_discriminator_loss",
    "relativistic_generator_loss",
]
