"""Download many URLs into one folder, a few at a time."""

import hashlib
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gramgan_plugin.errors import file_errors
from gramgan_plugin.utils.download.network import Budget, Network
from gramgan_plugin.utils.download.transfer import DownloadError, download
from gramgan_plugin.utils.progress import tracked
from gramgan_plugin.utils.threads import in_order

AHEAD = 16  # a slow download does not block the next ones


def file_of(folder: Path, url: str) -> Path:
    """Return the file for a URL's content; its name is not taken from the URL."""
    return folder / hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:40]


def fetch(
    urls: Sequence[str], folder: Path, network: Network, connections: int, progress: bool = True, stop: bool = False
) -> dict[str, str]:
    """Download the URLs that the folder does not have yet.

    Args:
        urls: http or https URLs.
        folder: has one file for each URL, see :func:`file_of`.
        network: limits for downloads.
        connections: number of simultaneous downloads.
        progress: report on stderr.
        stop: stop at the first failure.

    Returns:
        The reason of each failure, by URL.

    Raises:
        UserError: if the disk cannot be written.
    """
    missing = [url for url in urls if not file_of(folder, url).is_file()]
    failed: dict[str, str] = {}
    if not missing:
        return failed
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        budget = Budget(network.max_total - sum(path.stat().st_size for path in folder.iterdir()))

    def fetch_one(url: str) -> str | None:
        try:
            download(url, file_of(folder, url), network, budget)
        except DownloadError as error:
            return str(error)
        return None

    ahead, end = AHEAD * connections, network.stop.set  # Ctrl-C ends running transfers
    with closing(in_order(fetch_one, missing, connections, ahead, end)) as results:
        for _ in tracked(missing, "download", progress):
            url, reason = next(results)
            if reason is not None:
                failed[url] = reason
                if stop:
                    break
    network.stop.clear()
    return failed
