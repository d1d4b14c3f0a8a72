"""Scores of other models in published tables, to compare with; they are in ``published_scores.yml``."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from gramgan_plugin.utils.yaml_io import parse_yaml

FILE = "published_scores.yml"
SCALE = 4  # of all rows
HEADINGS = {"lpips": "LPIPS", "psnr_y": "PSNR-Y (dB)", "ssim": "SSIM", "ssim_y": "SSIM-Y"}


@dataclass(frozen=True)
class PublishedScore:
    """A model's mean score on a set, as a published table prints it.

    Attributes:
        model: the model's name.
        set: the set's name.
        metric: a key of ``HEADINGS``.
        value: the number with the digits that are printed.
        source: where it comes from, in words.
        protocol: how it was measured, as far as known, in words.
    """

    model: str
    set: str
    metric: str
    value: str
    source: str
    protocol: str


@cache
def all_published_scores() -> tuple[PublishedScore, ...]:
    """Return all rows of the file."""
    text = files("gramgan_plugin.evaluation").joinpath(FILE).read_text(encoding="utf-8")
    return tuple(PublishedScore(**row) for row in parse_yaml(text, FILE)["rows"])


def published_scores(dataset: str) -> dict[str, dict[str, PublishedScore]]:
    """Return model -> metric -> score on a set; upper and lower case make no difference in the set's name.

    >>> published_scores("set5")["LDL"]["lpips"].value
    '0.069'
    """
    found: dict[str, dict[str, PublishedScore]] = {}
    for score in all_published_scores():
        if score.set.lower() == dataset.lower():
            found.setdefault(score.model, {})[score.metric] = score
    return found
