"""Read the images of a set one by one, each with a unique name; unreadable ones do not stop the iteration."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from torch.utils.data import DataLoader

from gramgan_plugin.data.unreadable import described, is_about_an_image


@dataclass(frozen=True)
class SetImage:
    """One image of a set.

    Attributes:
        name: its file's name without suffix; with a number if an earlier image has that name.
        data: a batch of one, or None if it cannot be read.
        problem: why it cannot be read.
    """

    name: str
    data: dict[str, Any] | None
    problem: str = ""


def set_images(loader: DataLoader[Any], indices: Iterable[int] | None = None) -> Iterator[SetImage]:
    """Yield the images of a set, read in this process; no random number is drawn.

    Args:
        loader: the set's loader.
        indices: which of its images; all if None.

    Raises:
        Exception: what the dataset raises for other reasons than an image (options, memory, disk space).
    """
    dataset: Any = loader.dataset
    names = image_names(dataset)
    for index in range(len(dataset)) if indices is None else indices:
        try:
            data = loader.collate_fn([dataset[index]])
        except Exception as error:
            if not is_about_an_image(error):
                raise
            name = names[index] if names else f"image {index + 1}"
            yield SetImage(name, None, described(error, dataset, index))
            continue
        yield SetImage(names[index] if names else _stem(data["lq_path" if "lq_path" in data else "gt_path"][0]), data)


def image_names(dataset: Any) -> list[str]:
    """Return a unique name for each image; empty if the dataset does not list its files.

    >>> class Two:
    ...     paths = [{"lq_path": "a/bird.png", "gt_path": "gt/bird.png"}, {"lq_path": "b/bird.png"}]
    >>> image_names(Two())
    ['bird', 'bird_2']
    """
    paths = [_path(entry) for entry in getattr(dataset, "pairs", None) or getattr(dataset, "paths", None) or ()]
    if not paths or None in paths:
        return []
    names: dict[str, None] = {}
    for stem in map(_stem, paths):
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}_{number}"
        names[name] = None
    return list(names)


def _path(entry: Any) -> Any:
    """Return the LQ file of an entry of BasicSR's lists (``lq_path``) or ours (``lq_key``), or else its GT file."""
    if isinstance(entry, dict):
        return entry.get("lq_path") or entry.get("gt_path")
    return entry if isinstance(entry, str) else getattr(entry, "lq_key", None) or getattr(entry, "gt_key", None)


def _stem(path: Any) -> str:
    return PurePath(path).stem
