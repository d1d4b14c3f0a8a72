"""The patch-wise texture loss of Gram-GAN as a module."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gramgan_plugin.functional.candidates import CandidateSet, candidate_set
from gramgan_plugin.functional.choosing import choose
from gramgan_plugin.functional.description import Description
from gramgan_plugin.functional.patches import patch_grid
from gramgan_plugin.functional.precision import at_least_float32
from gramgan_plugin.functional.selection import Selection
from gramgan_plugin.functional.texture import check_pair, described_loss
from gramgan_plugin.losses.gram_patch_options import check_database, check_options, open_database
from gramgan_plugin.losses.vgg_layer import VGGLayer


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
        stride: pixels from one patch to the next, of SR as of the candidates; None for ``patch_size``, patches side by
            side. Below it they overlap.
        features: compare features of VGG19 instead of pixels: a mapping with ``layer`` (``conv1_2``, or ``relu1_2`` for
            after the activation) and perhaps ``vgg_weights``, as in `VGGPerceptualLoss`. ``patch_size`` and ``stride``
            then count pixels of the features' map; images must have 3 channels.
        database: a folder of patches to choose from, made by ``basicsr patchdb build``; None for none. It is searched
            by Gram vectors.
        database_use: ``also`` to choose from the crop and the database, ``only`` from the database alone.
        top_k: one of so many nearest candidates is drawn; 1 takes the nearest.
        database_index: how the database is searched: ``auto``, ``kdtree``, ``flat``, ``ivf`` or ``hnsw``.

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
        chunk_size: int = 2**22,
        stride: int | None = None,
        features: Mapping[str, Any] | None = None,
        database: str | None = None,
        database_use: str = "also",
        top_k: int = 1,
        database_index: str = "auto",
    ) -> None:
        super().__init__()
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
        self.stride = stride
        self.top_k = top_k
        self.database_use = database_use
        self.database_index = database_index
        check_options(self)
        self.database_only = database is not None and database_use == "only"
        self.features = None if features is None else VGGLayer.of_options(features)
        self.reduction = 1 if self.features is None else self.features.reduction
        self.database = None if database is None else open_database(self, Path(database))

    def select(
        self,
        sr: Tensor,
        gt: Tensor,
        theta: Tensor | None = None,
        draw: Tensor | None = None,
        measure: bool = False,
    ) -> Selection:
        """Choose the candidates, see `select_candidates`; the arguments are those of `compare`."""
        with torch.no_grad():
            return self.compare(sr, gt, theta, draw, measure)[1]

    def compare(
        self,
        sr: Tensor,
        gt: Tensor,
        theta: Tensor | None = None,
        draw: Tensor | None = None,
        measure: bool = False,
    ) -> tuple[Tensor, Selection]:
        """The weighted loss, and what was chosen for it.

        Args:
            sr: (N, C, H, W) in [0, 1]; patches must cover it without a remainder.
            gt: (N, C, H, W) in [0, 1].
            theta: (N, affine_copies, 2, 3) of `random_theta`; None draws them from torch's default generator.
            draw: (N, P) of `random_draw`, for ``top_k`` above 1; None draws them likewise.
            measure: whether the selection is to have its distances, too.

        Returns:
            A scalar with a gradient for ``sr`` only, and the selection.

        Raises:
            ValueError: if shapes do not fit together or patches do not cover SR.
            OptionError: if the images have other channels than the database's patches.
        """
        step = None if self.stride is None else self.stride * self.reduction
        check_pair(sr, gt, self.patch_size * self.reduction, step)
        sr, gt = at_least_float32(sr, gt)
        if self.database is not None:
            check_database(self, self.database.store, sr.shape[1])
        maps = sr if self.features is None else self.features(sr)
        x = self._on.of_image(maps, self.patch_size, self.stride)
        by = x if self._on == self._by else self._by.of_image(maps.detach(), self.patch_size, self.stride)
        if self.top_k > 1 and draw is None:
            draw = torch.rand(x.shape[:2])
        selection = choose(
            by,
            self._candidates(gt, self._theta(gt, theta)),
            self._by,
            alpha=self.alpha,
            beta=self.beta,
            radius=self.radius,
            top_k=self.top_k,
            draw=draw,
            database=self.database,
            database_only=self.database_only,
            measure=measure,
            chunk_size=self.chunk_size,
        )
        return self._value(x, selection, maps.shape[1]), selection

    def forward(
        self,
        sr: Tensor,
        gt: Tensor,
        theta: Tensor | None = None,
        selection: Selection | None = None,
        draw: Tensor | None = None,
        report: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """The weighted loss.

        Args:
            sr: see `compare`.
            gt: see `compare`.
            theta: see `compare`.
            selection: what `select` has chosen for these images already; nothing is drawn then.
            draw: see `compare`.
            report: gets the `Selection.statistics` of what is chosen here.

        Returns:
            A scalar with a gradient for ``sr`` only.

        Raises:
            ValueError: as `compare`.
        """
        if selection is None:
            value, chosen = self.compare(sr, gt, theta, draw, measure=report is not None)
            if report is not None:
                report.update(chosen.statistics())
            return value
        maps = sr if self.features is None else self.features(sr)
        return self._value(self._on.of_image(maps, self.patch_size, self.stride), selection, maps.shape[1])

    def patches_in(self, image: Tensor) -> int:
        """The number of patches that (N, C, H, W) is cut into."""
        height, width = (side // self.reduction for side in image.shape[2:])
        rows, columns = patch_grid(height, width, self.patch_size, self.stride)
        return rows * columns

    @property
    def _on(self) -> Description:
        return Description(self.loss_on, self.normalize, self.center)

    @property
    def _by(self) -> Description:
        return Description(self.select_by, self.normalize, self.center)

    def _value(self, x: Tensor, selection: Selection, channels: int) -> Tensor:
        return self.loss_weight * described_loss(x, selection, self._on, channels, self.criterion)

    def _candidates(self, gt: Tensor, theta: Tensor) -> CandidateSet:
        return candidate_set(
            gt,
            theta,
            self.patch_size,
            self.downsample,
            self.antialias,
            self.affine_sampling,
            self.stride,
            self.features,
            self.reduction,
        )

    def _theta(self, gt: Tensor, theta: Tensor | None) -> Tensor:
        shape = (gt.shape[0], self.affine_copies, 2, 3)
        if theta is None:
            return torch.eye(2, 3) + self.affine_magnitude * torch.randn(shape)
        if theta.shape != shape:
            raise ValueError(f"theta: expected shape {shape}, got {tuple(theta.shape)}")
        return theta
