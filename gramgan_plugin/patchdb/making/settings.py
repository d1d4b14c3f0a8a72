"""The settings that determine which patches a database gets."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gramgan_plugin.errors import UserError
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.store import VARIANTS, Store

MAX_PATCHES = 200_000
MOST_PATCHES = 10_000_000
MAGNITUDE = 0.003  # of the warped copies, as in Song et al., Gram-GAN, Sensors 2023, 23(4), 2098
PATCH_SIZES = range(2, 33)
MOST_SIDE = 128  # image pixels of a patch of features


@dataclass(frozen=True)
class Settings:
    """How patches are chosen.

    Attributes:
        variants: a subset of ``VARIANTS``.
        min_contrast: patches with less contrast are flat and left out; see ``moments.contrasts``.
        thin: the step, in levels of 255, within which patches count as near-duplicates; 0 for equal patches only.
        seed: seed of the places and of the warped copies.
        magnitude: magnitude of the warps.
    """

    variants: tuple[str, ...] = VARIANTS
    min_contrast: float = 0.01
    thin: float = 4.0
    seed: int = 0
    magnitude: float = MAGNITUDE

    @classmethod
    def named(cls, variants: Sequence[str], **others: Any) -> "Settings":
        """Return settings with variants given by name, in any order.

        Raises:
            UserError: for unknown variants.
        """
        cls(variants=tuple(variants)).check()
        return cls(variants=tuple(name for name in VARIANTS if name in variants), **others)

    @classmethod
    def of(cls, store: Store) -> "Settings":
        """Return the settings that a database was built with.

        Raises:
            UserError: if its manifest does not have them.
        """
        options: Mapping[str, Any] = store.manifest["options"]
        try:
            given = {name: options[name] for name in cls.__dataclass_fields__}
            settings = cls(**{**given, "variants": tuple(given["variants"])})
            settings.check()
        except (KeyError, TypeError):
            raise UserError(
                f"{store.path}: was not made by `basicsr patchdb build`, so it cannot be added to; build another"
            ) from None
        return settings

    def as_data(self) -> dict[str, Any]:
        """Return the entries for the manifest."""
        return {**asdict(self), "variants": list(self.variants)}

    def variant_numbers(self) -> list[int]:
        """Return the places of the variants in ``VARIANTS``, in order."""
        return [number for number, name in enumerate(VARIANTS) if name in self.variants]

    def check(self) -> None:
        """Refuse invalid settings.

        Raises:
            UserError: with the command's option in the message.
        """
        unknown = [name for name in self.variants if name not in VARIANTS]
        if unknown or not self.variants:
            raise UserError(f"--variants: {unknown[0] if unknown else 'none'}; take some of {', '.join(VARIANTS)}")
        if not 0 <= self.min_contrast < 0.5:
            raise UserError(f"--min-contrast {self.min_contrast}: must be at least 0 and below 0.5")
        if not 0 <= self.thin <= 64:
            raise UserError(f"--thin {self.thin}: must be 0 to 64 levels")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must not be negative")


def check_sizes(definition: Definition, max_patches: int) -> None:
    """Refuse invalid sizes.

    Raises:
        UserError: names the option of the command.
    """
    sizes = PATCH_SIZES if definition.features is None else range(1, MOST_SIDE // definition.features.reduction + 1)
    if definition.patch_size not in sizes:
        of = "" if definition.features is None else f" at {definition.features.layer}"
        raise UserError(f"--patch-size {definition.patch_size}: must be {sizes[0]} to {sizes[-1]}{of}")
    if not 1 <= max_patches <= MOST_PATCHES:
        raise UserError(f"--max-patches {max_patches}: must be 1 to {MOST_PATCHES}")
