"""Check that the files and folders in the options exist, and that their content fits the options."""

from collections.abc import Callable, Mapping
from typing import Any

from gramgan_plugin.config.check import check_options
from gramgan_plugin.config.consistency_texture import check_texture_files
from gramgan_plugin.config.files_datasets import check_datasets
from gramgan_plugin.config.files_images import Deadline
from gramgan_plugin.config.files_weights import check_weights
from gramgan_plugin.config.findings import MOST, Findings
from gramgan_plugin.config.schema import with_current_names
from gramgan_plugin.config.schema_datasets import OF_BASICSR
from gramgan_plugin.errors import OptionError

SECONDS = 5.0  # time limit for reading images


def check_all(
    opt: Mapping[str, Any],
    warn: Callable[[str], object],
    *,
    is_train: bool | None = None,
    with_files: bool = True,
    resumed: bool = False,
) -> None:
    """Check options and the files that they name, and report every problem at once.

    Args:
        opt: as ``load_options`` returns them; values may be of any type.
        warn: called with each warning, one line.
        is_train: see ``check_options``.
        with_files: whether to check files and folders.
        resumed: see ``check_files``.

    Raises:
        OptionError: one line per problem.
    """
    problems: list[str] = []
    try:
        for warning in check_options(opt, is_train=is_train):
            warn(warning)
    except OptionError as error:
        problems += str(error).splitlines()
    if with_files and len(problems) <= MOST:  # above it, not all are reported
        try:
            for warning in check_files(_correct_part(opt, problems), is_train=is_train, resumed=resumed):
                warn(warning)
        except OptionError as error:
            problems += [line for line in str(error).splitlines() if line not in problems]
    if problems:
        raise OptionError("\n".join(problems))


def _correct_part(opt: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    """Return the options without the sections that have problems, whose files cannot be checked."""
    correct = dict(opt)
    for line in problems:
        name, _, rest = line.partition(": ")[0].partition(".")
        inner, key = correct.get(name), rest.partition(".")[0]
        if isinstance(inner, Mapping) and key in inner:
            correct[name] = {own: value for own, value in inner.items() if own != key}
        else:
            correct.pop(name, None)
    return correct


def check_files(
    opt: Mapping[str, Any], *, is_train: bool | None = None, resumed: bool = False, seconds: float = SECONDS
) -> list[str]:
    """Check the files that options name: data sets, weights, a training state, patch databases.

    Args:
        opt: options that ``check_options`` accepts.
        is_train: whether to check for training or for testing, which warn of unusable images that they skip; None
            checks for both, and every image must be usable.
        resumed: whether the run is resumed from a checkpoint, whose networks replace ``pretrain_network_*``.
        seconds: time limit for reading images; the number of images not checked by then is a warning.

    Returns:
        Warnings, one line each.

    Raises:
        OptionError: one line per problem.
    """
    found = Findings()
    whole, _ = with_current_names(opt, OF_BASICSR)
    check_datasets(whole, is_train, Deadline(seconds), found)
    check_weights(whole, resumed, found)
    check_texture_files(whole, found)
    return found.raise_errors()
