"""The targets that patches of SR are compared with, and the protocols of a patch database and a feature network."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gramgan_plugin.functional.candidates import DATABASE, KINDS, CandidateSet
from gramgan_plugin.functional.gram import gram_matrix
from gramgan_plugin.functional.gram_kernel import upper_triangle
from gramgan_plugin.functional.texture_options import TextureOptions


class Database(Protocol):
    """A database of patches to choose from besides those of the crop, such as ``PatchSearch``."""

    def check(self, options: TextureOptions, features: "FeatureMap | None" = None) -> None:
        """Raise if its Gram vectors are not those that a loss with these options compares."""

    def search(self, queries: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return squared distances (M, k), ascending, and indices (M, k), int64, for queries (M, D)."""

    def grams(self, index: Tensor) -> Tensor:
        """Return the Gram vectors (..., D) of patches by index (...,)."""

    def patches(self, index: Tensor) -> Tensor:
        """Return patches (..., p, p, C) in [0, 1] by index (...,)."""


class FeatureMap(Protocol):
    """A network whose features are compared, such as ``VGG19Layer``.

    Attributes:
        reduction: pixels of the image per pixel of the map, in each direction.
    """

    reduction: int

    def __call__(self, image: Tensor) -> Tensor:
        """Return features (N, C, H / reduction, W / reduction) of (N, 3, H, W) in [0, 1]."""


@dataclass(frozen=True)
class Targets:
    """The candidate chosen for each patch of SR.

    Attributes:
        index: (N, P), int64: the crop's candidates first, then the database's patches.
        candidates: the crop's candidates, also if only the database was searched.
        options: of the choice.
        chosen: (N, P, D), the targets' descriptions by ``options.select_by``.
        database: the database searched, or None.
        distance: (N, P), the distance between the descriptions of SR's patch and its target (the Frobenius distance of
            Gram matrices), if measured.
        one_to_one: (N, P), the distance to GT's patch at the same place, if measured.
    """

    index: Tensor
    candidates: CandidateSet
    options: TextureOptions
    chosen: Tensor
    database: Database | None = None
    distance: Tensor | None = None
    one_to_one: Tensor | None = None

    @property
    def database_index(self) -> Tensor:
        """(N, P), int64: the index in the database, negative where a candidate of the crop was chosen."""
        return self.index - sum(self.candidates.counts())

    @property
    def kind(self) -> Tensor:
        """(N, P), int64: the targets' indices in `KINDS`."""
        kinds = self.candidates.kind()
        if self.database is None:
            return kinds[self.index]
        own = kinds[self.index.clamp(max=len(kinds) - 1)]
        return own.masked_fill(self.index >= len(kinds), DATABASE)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The available kinds of candidates."""
        return KINDS[: DATABASE + (self.database is not None)]

    def kind_fractions(self) -> dict[str, float]:
        """Return the fraction of patches whose target is of each kind; the fractions sum to 1."""
        counts = torch.bincount(self.kind.flatten(), minlength=len(KINDS)).tolist()
        return {name: counts[number] / self.index.numel() for number, name in enumerate(self.kinds)}

    def own_position_fraction(self) -> float:
        """Return the fraction of patches whose target is GT's patch at their own place."""
        own = torch.arange(self.index.shape[1], device=self.index.device)  # GT's patches come first, in order
        return float((self.index == own).double().mean())

    def statistics(self) -> dict[str, Tensor]:
        """Return statistics for the log, as scalars on the device, without waiting for it.

        Returns:
            The share of each kind under its name and, if measured, the means of ``distance`` and ``one_to_one``.
        """
        kind = self.kind
        found = {name: (kind == number).float().mean() for number, name in enumerate(self.kinds)}
        for name, values in (("distance", self.distance), ("one_to_one", self.one_to_one)):
            if values is not None:
                found[name] = values.mean()
        return found

    def describe(self, by: str) -> Tensor:
        """Return the descriptions (N, P, D) of the targets, see `describe_patches`."""
        if by == self.options.select_by:
            return self.chosen
        if by == "pixel":
            return self.patches().flatten(2)
        return upper_triangle(gram_matrix(self.patches(), self.options.normalize, self.options.center))

    def patches(self) -> Tensor:
        """Return the targets' pixels (N, P, p * p, C)."""
        if self.database is None:
            return self.candidates.take(self.index)
        number = self.database_index
        theirs = self.database.patches(number.clamp(min=0)).flatten(2, 3)  # (N, P, p * p, C)
        ours = self.candidates.take(torch.where(number < 0, self.index, 0))
        return torch.where((number < 0)[..., None, None], ours, theirs.to(ours))
