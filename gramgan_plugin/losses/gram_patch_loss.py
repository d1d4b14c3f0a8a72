"""The patch-wise texture loss of Gram-GAN."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any, cast

from torch import Tensor, nn

from gramgan_plugin.functional.candidates import random_draw, random_theta
from gramgan_plugin.functional.patches import patch_grid
from gramgan_plugin.functional.texture import gram_patch_loss
from gramgan_plugin.functional.texture_options import TextureOptions
from gramgan_plugin.functional.texture_targets import Database, FeatureMap, Targets
from gramgan_plugin.search.kinds import KINDS, new_name


class GramPatchLoss(nn.Module):
    r"""Patch-wise texture loss L_PT (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098): see `gram_patch_loss`.

    For the i-th non-overlapping patch :math:`e_i` of SR and :math:`g_i` of GT, with the Gram matrix G,

    .. math::
        p_i^* = \arg\min_p \alpha \|G(p) - G(e_i)\|_F^2 + \beta \|G(p) - G(g_i)\|_F^2, \qquad
        L_{PT} = \mathrm{mean}_i |G(e_i) - G(p_i^*)|

    where p runs over the patches of GT, of GT downsampled and of GT slightly warped. The choice carries no gradient.

    Args:
        loss_weight: multiplies the result.
        features: compare features of VGG19 instead of pixels: a mapping with ``layer`` (``conv1_2``, or ``relu1_2`` for
            after the activation) and optionally ``vgg_weights``, as in `VGGPerceptualLoss`. ``patch_size`` and
            ``stride`` then count pixels of the feature map; images must have 3 channels.
        database: a folder of patches to choose from, of ``basicsr patchdb build``; None for none. It is searched by
            Gram vectors.
        database_index: how the model opens the database to be searched: ``auto``, ``exact``, ``tree`` or ``hnsw``.
        options: those of `TextureOptions`, by name.

    ``features`` and ``database`` are described as in an option file. The loss itself opens no file: the model opens
    them, and passes the network (a ``VGG19Layer``) and the database (a ``PatchSearch``).

    Example:
        >>> import torch
        >>> gt = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> loss = GramPatchLoss(loss_weight=1.0)
        >>> float(loss(gt, gt))
        0.0
        >>> bool(loss(gt / 2, gt) > 0)
        True
    """

    form = "texture"
    options_class = TextureOptions
    # Options that name files, and how the model opens them.
    resources = {"features": "vgg19_layer", "database": "patch_database"}  # noqa: RUF012

    def __init__(
        self,
        loss_weight: float = 1.0,
        features: FeatureMap | Mapping[str, Any] | None = None,
        database: Database | str | None = None,
        database_index: str = "auto",
        **options: Any,
    ) -> None:
        super().__init__()
        self.loss_weight = loss_weight
        self.options = TextureOptions(**options)
        if database_index not in KINDS:
            raise ValueError(
                f"database_index: expected one of {', '.join(KINDS)}, got {database_index!r}{new_name(database_index)}"
            )
        if features is not None and not hasattr(features, "reduction"):
            raise ValueError(
                "features: the loss opens no file; give gramgan_plugin.archs.vgg19_arch.VGG19Layer(layer, weights)"
            )
        if database is not None and not hasattr(database, "search"):
            raise ValueError("database: the loss opens no file; give gramgan_plugin.patchdb.search.open_search(path)")
        if database is not None and self.options.select_by != "gram":
            raise ValueError(f"select_by: a database is searched by gram, not by {self.options.select_by}")
        if database is not None and features is not None and self.options.loss_on == "pixel":
            raise ValueError("loss_on: a database has Gram matrices of features, not the features; take gram")
        self.features = cast(FeatureMap | None, features)
        self.database = cast(Database | None, database)
        if self.database is not None:
            self.database.check(self.options, self.features)

    def forward(
        self,
        sr: Tensor,
        gt: Tensor,
        theta: Tensor | None = None,
        *,
        draw: Tensor | None = None,
        targets: Targets | None = None,
        report: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Return the weighted loss; the arguments are those of `gram_patch_loss`."""
        return self.loss_weight * gram_patch_loss(
            sr,
            gt,
            self.options,
            theta=theta,
            draw=draw,
            features=self.features,
            database=self.database,
            targets=targets,
            report=report,
        )

    def random_numbers(
        self, gt: Tensor, seed: Sequence[int], first_index: int = 0, stride: int = 1
    ) -> tuple[Tensor, Tensor | None]:
        """Return the random numbers of a batch: ``theta`` and, where ``top_k`` is above 1, ``draw``.

        Args:
            gt: (N, C, H, W).
            seed: see `random_theta`.
            first_index: see `random_theta`.
            stride: see `random_theta`.

        Returns:
            (N, affine_copies, 2, 3), and (N, P) in [0, 1) or None; float32, on the device of ``gt``.

        Raises:
            ValueError: as `random_theta`.
        """
        options = self.options
        theta = random_theta(len(gt), options.affine_copies, options.affine_magnitude, seed, first_index, stride)
        draw = None
        if options.top_k > 1:
            draw = random_draw(len(gt), self.patches_in(gt), seed, first_index, stride)
            draw = draw.to(gt.device, non_blocking=True)
        return theta.to(gt.device, non_blocking=True), draw

    def patches_in(self, image: Tensor) -> int:
        """Return the number of patches of an image (N, C, H, W)."""
        reduction = 1 if self.features is None else self.features.reduction
        height, width = (side // reduction for side in image.shape[2:])
        rows, columns = patch_grid(height, width, self.options.patch_size, self.options.stride)
        return rows * columns


def _signature() -> inspect.Signature:
    """Return the signature with every option by name, for the check of option files and help()."""
    own = [p for p in inspect.signature(GramPatchLoss).parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(TextureOptions)
        if field.default is not MISSING
    ]
    return inspect.Signature([*own, *options])


GramPatchLoss.__signature__ = _signature()  # type: ignore[attr-defined]
