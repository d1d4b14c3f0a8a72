"""Whether the options of `GramPatchLoss` make sense, and the database that they name."""

from pathlib import Path
from typing import TYPE_CHECKING

from gramgan_plugin.patchdb.search import PatchSearch
from gramgan_plugin.patchdb.store import Store, check_fits, open_store

if TYPE_CHECKING:
    from gramgan_plugin.losses.gram_patch_loss import GramPatchLoss

CHOICES = {
    "select_by": ("gram", "pixel"),
    "loss_on": ("gram", "pixel"),
    "criterion": ("l1", "mse"),
    "affine_sampling": ("bicubic", "bilinear"),
    "scope": ("crop", "local"),
    "database_use": ("also", "only"),
    "database_index": ("auto", "kdtree", "flat", "ivf", "hnsw"),
}


def check_options(loss: "GramPatchLoss") -> None:
    """Refuse values that the loss does not know.

    Raises:
        ValueError: names the option.
    """
    for name, known in CHOICES.items():
        value = getattr(loss, name)
        if value not in known:
            raise ValueError(f"{name}: expected one of {', '.join(known)}, got {value!r}")
    if loss.patch_size < 1 or loss.chunk_size < 1 or loss.affine_copies < 0 or loss.affine_magnitude < 0:
        raise ValueError("patch_size and chunk_size must be at least 1, affine_copies and affine_magnitude at least 0")
    if loss.alpha < 0 or loss.beta < 0 or loss.alpha + loss.beta == 0:
        raise ValueError(f"alpha and beta must be at least 0 and not both 0, got {loss.alpha} and {loss.beta}")
    if any(not isinstance(factor, int) or factor < 2 for factor in loss.downsample):
        raise ValueError(f"downsample: expected a list of integers of at least 2, got {list(loss.downsample)!r}")
    if (loss.scope == "local") != (loss.radius is not None) or (loss.radius is not None and loss.radius < 0):
        raise ValueError("radius: give one of at least 0 with scope 'local', and none with scope 'crop'")
    if loss.stride is not None and not 1 <= loss.stride <= loss.patch_size:
        raise ValueError(
            f"stride: expected 1 to patch_size, which is {loss.patch_size}, got {loss.stride}: no pixel is left out"
        )
    if loss.top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {loss.top_k}")


def open_database(loss: "GramPatchLoss", path: Path) -> PatchSearch:
    """The search in a database, which has to fit the loss's options.

    Raises:
        ValueError: if the options ask for what no database has.
        OptionError: if this one is of another kind.
        UserError: if it is missing, damaged, or was written by a newer version.
    """
    if loss.select_by != "gram":
        raise ValueError(f"select_by: a database is searched by gram, not by {loss.select_by}")
    if loss.features is not None and loss.loss_on == "pixel":
        raise ValueError("loss_on: a database has Gram matrices of features, not the features; take gram")
    store = open_store(path)
    if loss.top_k > store.count:
        raise ValueError(f"top_k: {loss.top_k}, but {path} has {store.count} patches")
    weights = None if loss.features is None else loss.features.weights_sha256()
    check_database(loss, store, store.definition.channels, weights)
    return PatchSearch(store, loss.database_index)


def check_database(loss: "GramPatchLoss", store: Store, channels: int, weights: str | None = None) -> None:
    """As `check_fits`, with the loss's options.

    Args:
        loss: compares Gram vectors.
        store: has some.
        channels: of the images.
        weights: SHA-256 of the loss's features; None where they need not be looked at.

    Raises:
        OptionError: see `check_fits`.
    """
    check_fits(
        store,
        patch_size=loss.patch_size,
        channels=channels,
        normalize=loss.normalize,
        center=loss.center,
        layer=None if loss.features is None else loss.features.layer,
        weights=weights,
    )
