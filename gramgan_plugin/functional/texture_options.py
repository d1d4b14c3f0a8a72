"""The options of the patch-wise texture loss."""

from collections.abc import Sequence
from dataclasses import dataclass

CHOICES = {
    "select_by": ("gram", "pixel"),
    "loss_on": ("gram", "pixel"),
    "criterion": ("l1", "mse"),
    "affine_sampling": ("bicubic", "bilinear"),
    "scope": ("crop", "local"),
    "database_use": ("also", "only"),
}


@dataclass(frozen=True)
class TextureOptions:
    """The options of patches, comparison and candidates; see `gramgan_plugin.functional.texture`.

    Beby-GAN's best-buddy loss is ``patch_size=3, select_by="pixel", loss_on="pixel", downsample=(2, 4),
    antialias=False, affine_copies=0``.

    Args:
        patch_size: side of a patch in pixels; the sides of SR must be multiples of it.
        alpha: weight of the distance to the SR patch in the choice.
        beta: weight of the distance to the GT patch in the choice (alpha = beta = 1 is a decision of this
            project).
        normalize: divide Gram matrices by the pixels of a patch (a decision of this project).
        center: subtract each patch's mean first; the uncentred Gram matrix of a photo's patch shows little more
            than its mean colour.
        select_by: what the choice compares, ``gram`` or ``pixel``.
        loss_on: what the loss compares, ``gram`` or ``pixel`` (the paper can be read both ways; ``gram`` is a decision
            of this project).
        criterion: ``l1`` or ``mse``.
        downsample: integer factors of the downsampled copies.
        antialias: whether downsampling filters first.
        affine_copies: number of warped copies.
        affine_magnitude: standard deviation of the noise added to the identity's six entries.
        affine_sampling: ``bicubic`` or ``bilinear``.
        scope: ``crop`` for all candidates of the crop, ``local`` for those within ``radius``.
        radius: for ``local``: distance of patch centres in patches of GT, the larger of the two directions.
        chunk_size: the most distances in memory at a time.
        stride: pixels from one patch to the next, in SR and the candidates; None for ``patch_size``, patches side by
            side. Smaller values make them overlap.
        database_use: ``also`` to choose from the crop and the database, ``only`` from the database alone.
        top_k: draw one of so many nearest candidates; 1 takes the nearest.

    Raises:
        ValueError: for a wrong value; the message begins with the option's name.
    """

    patch_size: int = 4
    alpha: float = 1.0
    beta: float = 1.0
    normalize: bool = True
    center: bool = False
    select_by: str = "gram"
    loss_on: str = "gram"
    criterion: str = "l1"
    downsample: Sequence[int] = (2,)
    antialias: bool = True
    affine_copies: int = 1
    affine_magnitude: float = 0.003
    affine_sampling: str = "bicubic"
    scope: str = "crop"
    radius: float | None = None
    chunk_size: int = 2**22
    stride: int | None = None
    database_use: str = "also"
    top_k: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "downsample", tuple(self.downsample))
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if value not in known:
                raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
        for name, least in (("patch_size", 1), ("chunk_size", 1), ("affine_copies", 0), ("affine_magnitude", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}: must be at least {least}, got {getattr(self, name)}")
        if self.alpha < 0 or self.beta < 0 or self.alpha + self.beta == 0:
            raise ValueError(f"alpha and beta must be at least 0 and not both 0, got {self.alpha} and {self.beta}")
        if any(not isinstance(factor, int) or factor < 2 for factor in self.downsample):
            raise ValueError(f"downsample: expected a list of integers of at least 2, got {list(self.downsample)!r}")
        if (self.scope == "local") != (self.radius is not None) or (self.radius is not None and self.radius < 0):
            raise ValueError("radius: give one of at least 0 with scope 'local', and none with scope 'crop'")
        if self.stride is not None and not 1 <= self.stride <= self.patch_size:
            raise ValueError(
                f"stride: expected 1 to patch_size, which is {self.patch_size}, got {self.stride}: no pixel is left out"
            )
        if self.top_k < 1:
            raise ValueError(f"top_k: must be at least 1, got {self.top_k}")
