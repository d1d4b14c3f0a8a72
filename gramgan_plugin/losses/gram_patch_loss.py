"""The patch-wise texture loss of Gram-GAN as a module."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gramgan_plugin.functional.texture import Selection, gram_patch_loss, select_candidates

CHOICES = {
    "select_by": ("gram", "pixel"),
    "loss_on": ("gram", "pixel"),
    "criterion": ("l1", "mse"),
    "affine_sampling": ("bicubic", "bilinear"),
    "scope": ("crop", "local"),
}


class GramPatchLoss(nn.Module):
    r"""Patch-wise texture loss L_PT (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098).

    For the i-th non-overlapping patch :math:`e_i` of SR and :math:`g_i` of GT, with the Gram matrix G,

    .. math::
        p_i^* = \arg\min_p \alpha \|G(p) - G(e_i)\|_F^2 + \beta \|G(p) - G(g_i)\|_F^2, \qquad
        L_{PT} = \mathrm{mean}_i |G(e_i) - G(p_i^*)|

    where p runs over the patches of GT, of GT downsampled and of GT slightly warped. The choice carries no
    gradient. All arithmetic is in at least float32, also under autocast.

    Beby-GAN's best-buddy loss is ``patch_size=3, select_by="pixel", loss_on="pixel", downsample=(2, 4),
    antialias=False, affine_copies=0``.

    Args:
        loss_weight: multiplies the result.
        patch_size: side of a patch in pixels; the sides of SR must be multiples of it.
        alpha: weight of the distance to the SR patch in the choice.
        beta: weight of the distance to the GT patch in the choice (alpha = beta = 1 is a decision of this
            project).
        normalize: divide Gram matrices by the pixels of a patch (a decision of this project).
        center: subtract each patch's mean first; the uncentred Gram matrix of a photo's patch is almost only
            its mean colour.
        select_by: what the choice compares, ``gram`` or ``pixel``.
        loss_on: what the loss compares, ``gram`` or ``pixel``.
        criterion: ``l1`` or ``mse``.
        downsample: integer factors of the downsampled copies.
        antialias: whether downsampling filters first.
        affine_copies: number of warped copies.
        affine_magnitude: standard deviation of what is added to the identity's six entries.
        affine_sampling: ``bicubic`` or ``bilinear``.
        scope: ``crop`` for all candidates of the crop, ``local`` for those within ``radius``.
        radius: for ``local``: distance of patch centres in patches of GT, the larger of the two directions.
        chunk_size: the most distances held in memory at a time.

    Example:
        >>> import torch
        >>> gt = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> loss = GramPatchLoss(loss_weight=1.0)
        >>> float(loss(gt, gt))
        0.0
        >>> bool(loss(gt / 2, gt) > 0)
        True
    """

    def __init__(
        self,
        loss_weight: float = 1.0,
        patch_size: int = 4,
        alpha: float = 1.0,
        beta: float = 1.0,
        normalize: bool = True,
        center: bool = False,
        select_by: str = "gram",
        loss_on: str = "gram",
        criterion: str = "l1",
        downsample: Sequence[int] = (2,),
        antialias: bool = True,
        affine_copies: int = 1,
        affine_magnitude: float = 0.003,
        affine_sampling: str = "bicubic",
        scope: str = "crop",
        radius: float | None = None,
        chunk_size: int = 2**20,
    ) -> None:
        super().__init__()
        chosen = {
            "select_by": select_by,
            "loss_on": loss_on,
            "criterion": criterion,
            "affine_sampling": affine_sampling,
            "scope": scope,
        }
        for name, value in chosen.items():
            if value not in CHOICES[name]:
                raise ValueError(f"{name}: expected one of {', '.join(CHOICES[name])}, got {value!r}")
        if patch_size < 1 or chunk_size < 1 or affine_copies < 0 or affine_magnitude < 0:
            raise ValueError(
                "patch_size and chunk_size must be at least 1, affine_copies and affine_magnitude at least 0"
            )
        if alpha < 0 or beta < 0 or alpha + beta == 0:
            raise ValueError(f"alpha and beta must be at least 0 and not both 0, got {alpha} and {beta}")
        if any(not isinstance(factor, int) or factor < 2 for factor in downsample):
            raise ValueError(f"downsample: expected a list of integers of at least 2, got {downsample!r}")
        if (scope == "local") != (radius is not None) or (radius is not None and radius < 0):
            raise ValueError("radius: give one of at least 0 with scope 'local', and none with scope 'crop'")
        self.loss_weight = loss_weight
        self.patch_size = patch_size
        self.alpha = alpha
        self.beta = beta
        self.normalize = normalize
        self.center = center
        self.select_by = select_by
        self.loss_on = loss_on
        self.criterion = criterion
        self.downsample = tuple(downsample)
        self.antialias = antialias
        self.affine_copies = affine_copies
        self.affine_magnitude = affine_magnitude
        self.affine_sampling = affine_sampling
        self.scope = scope
        self.radius = radius
        self.chunk_size = chunk_size

    def select(self, sr: Tensor, gt: Tensor, theta: Tensor | None = None) -> Selection:
        """Choose the candidates, see `select_candidates`; the arguments are those of `forward`."""
        return select_candidates(
            sr,
            gt,
            self._theta(gt, theta),
            patch_size=self.patch_size,
            alpha=self.alpha,
            beta=self.beta,
            select_by=self.select_by,
            normalize=self.normalize,
            center=self.center,
            downsample=self.downsample,
            antialias=self.antialias,
            affine_sampling=self.affine_sampling,
            radius=self.radius,
            chunk_size=self.chunk_size,
        )

    def forward(
        self, sr: Tensor, gt: Tensor, theta: Tensor | None = None, selection: Selection | None = None
    ) -> Tensor:
        """The weighted loss.

        Args:
            sr: (N, C, H, W) in [0, 1]; H and W are multiples of ``patch_size``.
            gt: (N, C, H, W) in [0, 1].
            theta: (N, affine_copies, 2, 3) of `random_theta`; None draws them from torch's default generator.
            selection: what `select` has chosen for these images already; ``theta`` is not used then.

        Returns:
            A scalar with a gradient for ``sr`` only.

        Raises:
            ValueError: if shapes do not fit together or the sides are not multiples of ``patch_size``.
        """
        return self.loss_weight * gram_patch_loss(
            sr,
            self.select(sr, gt, theta) if selection is None else selection,
            loss_on=self.loss_on,
            criterion=self.criterion,
            normalize=self.normalize,
            center=self.center,
        )

    def _theta(self, gt: Tensor, theta: Tensor | None) -> Tensor:
        shape = (gt.shape[0], self.affine_copies, 2, 3)
        if theta is None:
            return torch.eye(2, 3) + self.affine_magnitude * torch.randn(shape)
        if theta.shape != shape:
            raise ValueError(f"theta: expected shape {shape}, got {tuple(theta.shape)}")
        return theta
