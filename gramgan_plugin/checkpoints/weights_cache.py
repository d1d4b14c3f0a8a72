"""Find public weights on this machine, check them, and download what is missing into one folder.

A file in the folder is never changed: it appears under its name when it is complete and checked. torch and requests
are imported where they are used.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from gramgan_plugin.checkpoints.public_weights import SEE_LIST, WEIGHTS, PublicWeights
from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.utils.download.limits import Budget, Network
from gramgan_plugin.utils.io import expanded, file_sha256
from gramgan_plugin.utils.progress import counted_bytes
from gramgan_plugin.utils.text import did_you_mean, printable, shown

FOLDER_VARIABLE = "GRAMGAN_WEIGHTS"
INCOMING = "incoming"  # subfolder of the cache for what is not complete or not checked
SHIPPED = Path(__file__).parent / "shipped"  # what comes with this package
_REINSTALL = "it comes with this package: install gramgan-plugin again"
MOST_NEIGHBOURS = 1000  # files with which a wrong name is compared


def cache_folder() -> Path:
    """Return the folder of downloaded weights: that of ``GRAMGAN_WEIGHTS``, else one in the user's cache."""
    named = os.environ.get(FOLDER_VARIABLE)
    return expanded(named) if named else platformdirs.user_cache_path("gramgan-plugin", appauthor=False) / "weights"


def hub_folder() -> Path:
    """Return the folder into which torch.hub, torchvision and BasicSR download weights."""
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints"


def find(weights: PublicWeights) -> Path | None:
    """Return the file of weights on this machine, unchecked; None without one.

    It is in this package if it comes with it, else in the cache, or in torch.hub's.
    """
    return next((path for path in _places(weights) if path.is_file()), None)


def verify(weights: PublicWeights, path: Path) -> str | None:
    """Return why a file is not the published one, or None if it is.

    Its content is read without running code from it, and its size and SHA-256 are compared.

    Raises:
        UserError: if it cannot be read.
    """
    from gramgan_plugin.checkpoints.headers import read_headers

    with file_errors(path):
        size = path.stat().st_size
        if size > weights.max_bytes:
            return f"{size:,} bytes, above the {weights.max_bytes:,} that it may have"
        try:
            read_headers(path)
        except UserError as error:
            return str(error).removeprefix(f"{printable(str(path))}: ")
        if weights.size not in (None, size):
            return f"{size:,} bytes instead of {weights.size:,}"
        digest = file_sha256(path)
    if digest.startswith(weights.sha256):
        return None
    return f"SHA-256 {digest[: len(weights.sha256)]} instead of {weights.sha256}"


def resolve_weights(name_or_path: str | Path) -> Path:
    """Return the file that a path or the name of public weights stands for; download what is missing.

    Args:
        name_or_path: a file, which is returned unchecked, or a name of ``public_weights.WEIGHTS``.

    Raises:
        UserError: if it is neither, or the weights are damaged or cannot be downloaded.
    """
    path = expanded(name_or_path)
    with file_errors(shown(path, 300)):
        if path.is_file():
            return path
    if str(name_or_path) in WEIGHTS:
        return ensure(WEIGHTS[str(name_or_path)])
    if path.exists():
        return path
    hint = did_you_mean(name_or_path, [*WEIGHTS, *_neighbours(path)], SEE_LIST)
    raise UserError(f"{shown(name_or_path, 300)}: neither a file nor a name of public weights{hint}")


def ensure(weights: PublicWeights) -> Path:
    """Return the checked file of weights; download it if this machine does not have it.

    Raises:
        UserError: if the file is damaged, or cannot be downloaded.
    """
    path = find(weights)
    if path is None:
        return fetch(weights)
    problem = verify(weights, path)
    if problem is not None:
        cure = _REINSTALL if weights.shipped else f"`basicsr weights fetch {weights.name}` replaces it"
        raise UserError(f"{weights.name}: {printable(str(path))}: {problem}; {cure}")
    return path


def fetch(weights: PublicWeights, progress: bool = True) -> Path:
    """Return the checked file of weights; download it if it is missing or damaged.

    A download that was cut off is resumed. If another process downloads the same file, this one waits and uses it.

    Args:
        weights: what to fetch.
        progress: report on stderr.

    Raises:
        UserError: if it cannot be downloaded or written, or what arrives is not the published file.
    """
    path = _undamaged(weights)
    if path is not None:
        return path
    if weights.shipped:
        raise UserError(f"{weights.name}: {printable(str(SHIPPED / weights.file))}: missing or damaged; {_REINSTALL}")
    folder = cache_folder()
    arrived = folder / INCOMING / weights.file
    with file_errors(arrived.parent):
        arrived.parent.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time(arrived.with_name(f"{weights.file}.lock"), weights.name):
        path = _undamaged(weights)  # now that another process has finished
        if path is not None:
            return path
        if not arrived.is_file():  # else a process was killed while it checked the file
            _download(weights, arrived, progress)
        problem = verify(weights, arrived)
        with file_errors(arrived):
            if problem is not None:
                arrived.unlink()
                raise UserError(
                    f"{weights.name}: {weights.url} is not what it should be: {problem}; {_by_hand(weights)}"
                )
            return arrived.replace(folder / weights.file)


def network_for(weights: PublicWeights) -> Network:
    """Return the limits for the download of weights."""
    return Network(
        max_bytes=weights.max_bytes,
        limit="what it may have",
        https_only=weights.url.startswith("https:"),
        allow_private=True,  # the URLs are not the user's, and a company's mirror has a private address
    )


def _download(weights: PublicWeights, target: Path, progress: bool) -> None:
    from gramgan_plugin.utils.download.transfer import DownloadError, download

    network = network_for(weights)
    try:
        with counted_bytes(weights.name, progress) as report:
            download(weights.url, target, network, Budget(network.max_total), report)
    except DownloadError as error:
        why = f"{weights.url} cannot be downloaded: {printable(str(error))}"
        raise UserError(f"{weights.name}: {why}; {_by_hand(weights)}") from error


def _by_hand(weights: PublicWeights) -> str:
    return f"try again later, or get {weights.file} elsewhere and put it into {printable(str(cache_folder()))}"


def _places(weights: PublicWeights) -> Iterator[Path]:
    if weights.shipped:
        yield SHIPPED / weights.file
        return
    yield cache_folder() / weights.file
    yield hub_folder() / weights.file


def _undamaged(weights: PublicWeights) -> Path | None:
    """Return the first file on this machine that is the published one."""
    return next((path for path in _places(weights) if path.is_file() and verify(weights, path) is None), None)


@contextmanager
def _one_at_a_time(lock_file: Path, name: str) -> Iterator[None]:
    lock = FileLock(lock_file)
    with file_errors(lock_file):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{name}: another process downloads it; waiting", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _neighbours(path: Path) -> list[str]:
    """Return the paths of files beside a path, written as that is."""
    with suppress(OSError, ValueError):
        return [str(path.parent / entry.name) for entry in islice(path.parent.iterdir(), MOST_NEIGHBOURS)]
    return []
