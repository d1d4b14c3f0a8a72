"""Checks that the files and folders which options name are there, and that what is in them fits the options."""

from collections.abc import Callable, Mapping
from typing import Any

from gramgan_plugin.config.check import check_options
from gramgan_plugin.config.consistency_texture import check_texture_files
from gramgan_plugin.config.files_datasets import check_datasets
from gramgan_plugin.config.files_images import Deadline
from gramgan_plugin.config.files_weights import check_weights
from gramgan_plugin.config.findings import MOST, Findings
from gramgan_plugin.config.schema import with_names_of_today
from gramgan_plugin.config.schema_datasets import OF_BASICSR
from gramgan_plugin.errors import OptionError

SECONDS = 5.0  # for reading images


def check_all(
    opt: Mapping[str, Any],
    warn: Callable[[str], object],
    *,
    is_train: bool | None = None,
    with_files: bool = True,
    resumed: bool = False,
) -> None:
    """Check options and what they name, and report all that is wrong at once.

    Args:
        opt: as ``load_options`` gives them; values may be of any type.
        warn: takes each warning, one line.
        is_train: see ``check_options``.
        with_files: whether files and folders have to be there.
        resumed: see ``check_files``.

    Raises:
        OptionError: one line a problem.
    """
    problems: list[str] = []
    try:
        for warning in check_options(opt, is_train=is_train):
            warn(warning)
    except OptionError as error:
        problems += str(error).splitlines()
    if with_files and len(problems) <= MOST:  # of more, not all are reported
        try:
            for warning in check_files(_sound_part(opt, problems), is_train=is_train, resumed=resumed):
                warn(warning)
        except OptionError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        raise OptionError("\n".join(problems))


def _sound_part(opt: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The options without the sections that problems are about, whose files cannot be distinguished from mistakes."""
    sound = dict(opt)
    for line in problems:
        name, _, rest = line.partition(": ")[0].partition(".")
        inner, key = sound.get(name), rest.partition(".")[0]
        if isinstance(inner, Mapping) and key in inner:
            sound[name] = {own: value for own, value in inner.items() if own != key}
        else:
            sound.pop(name, None)
    return sound


def check_files(
    opt: Mapping[str, Any], *, is_train: bool | None = None, resumed: bool = False, seconds: float = SECONDS
) -> list[str]:
    """Inspect what options name: data sets, weights, a training state, patch databases.

    Args:
        opt: options that ``check_options`` has found right.
        is_train: training or testing, which warn of images that they will leave out of their means; None checks for
            both, and every image has to be usable.
        resumed: whether the run is resumed from a checkpoint, whose networks then count and not ``pretrain_network_*``.
        seconds: for reading images; how many are left unchecked then is a warning.

    Returns:
        Warnings, one line each.

    Raises:
        OptionError: one line a problem.
    """
    found = Findings()
    whole, _ = with_names_of_today(opt, OF_BASICSR)
    check_datasets(whole, is_train, Deadline(seconds), found)
    check_weights(whole, resumed, found)
    check_texture_files(whole, found)
    return found.raise_errors()
