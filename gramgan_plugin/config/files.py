"""Whether the files and folders that options name are there, and what is in them fits the options."""

from collections.abc import Callable, Mapping
from typing import Any

from gramgan_plugin.config.check import check_options
from gramgan_plugin.config.files_datasets import check_datasets
from gramgan_plugin.config.files_images import Deadline
from gramgan_plugin.config.files_weights import check_weights
from gramgan_plugin.config.findings import MOST, Findings
from gramgan_plugin.config.schema import with_names_of_today
from gramgan_plugin.config.schema_datasets import OF_BASICSR
from gramgan_plugin.config.sense_texture import check_texture_files
from gramgan_plugin.errors import OptionError

SECONDS = 5.0  # for reading images


def check_all(
    opt: Mapping[str, Any],
    warn: Callable[[str], object],
    *,
    is_train: bool | None = None,
    look_at_files: bool = True,
    goes_on: bool = False,
) -> None:
    """Check options and what they name, and tell all that is wrong at once.

    Args:
        opt: as ``load_options`` gives them; values may be of any type.
        warn: told each warning, one line.
        is_train: see ``check_options``.
        look_at_files: whether files and folders have to be there.
        goes_on: see ``check_files``.

    Raises:
        OptionError: one line a problem.
    """
    problems: list[str] = []
    try:
        for warning in check_options(opt, is_train=is_train):
            warn(warning)
    except OptionError as error:
        problems += str(error).splitlines()
    if look_at_files and len(problems) <= MOST:  # of more, not all are reported
        try:
            for warning in check_files(_sound_part(opt, problems), is_train=is_train, goes_on=goes_on):
                warn(warning)
        except OptionError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        raise OptionError("\n".join(problems))


def _sound_part(opt: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """The options without the sections that problems are about, whose files cannot be told apart from mistakes."""
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
    opt: Mapping[str, Any], *, is_train: bool | None = None, goes_on: bool = False, seconds: float = SECONDS
) -> list[str]:
    """Inspect what options name: data sets, weights, a training state, patch databases.

    Args:
        opt: options that ``check_options`` has found right.
        is_train: training or testing, which warn of images that they will leave out of their means; None checks for
            both, and every image has to be usable.
        goes_on: whether the run goes on from a checkpoint, whose networks then count and not ``pretrain_network_*``.
        seconds: for reading images; how many are left unchecked then is a warning.

    Returns:
        Warnings, one line each.

    Raises:
        OptionError: one line a problem.
    """
    found = Findings()
    whole, _ = with_names_of_today(opt, OF_BASICSR)
    check_datasets(whole, is_train, Deadline(seconds), found)
    check_weights(whole, goes_on, found)
    check_texture_files(whole, found)
    return found.raise_errors()
