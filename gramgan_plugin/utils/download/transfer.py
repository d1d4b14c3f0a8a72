"""Download a file over HTTP: resume interrupted downloads, and enforce the limits."""

import json
import os
from pathlib import Path
from urllib.parse import urljoin

import requests
from requests.utils import get_environ_proxies, requote_uri, select_proxy
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util import Retry

from gramgan_plugin.errors import file_errors
from gramgan_plugin.utils.download.addresses import ForbiddenError, check_host, guarded_session, url_problem
from gramgan_plugin.utils.download.limits import LEAST_RATE, Budget, Deadline, Network, Report, in_megabytes
from gramgan_plugin.utils.io import parse_json, replace_file
from gramgan_plugin.version import __version__

AGENT = f"gramgan-plugin/{__version__} (basicsr)"
CHUNK = 1 << 12  # small, so that a slow server is noticed soon
REDIRECTS = 5
WORTH_RETRYING = frozenset((408, 425, 429, 500, 502, 503, 504))
LONGEST_REASON = 100  # characters of the server's message
LONGEST_WAIT = 60.0  # seconds before another try, even if the server asks for more
CONNECT_TIMEOUT = 10.0
MOST_DIGITS = 18  # of a number of bytes; longer ones are not parsed


class DownloadError(Exception):
    """The reason why a URL could not be downloaded."""


class _Interrupted(Exception):  # noqa: N818
    """A temporary failure that is worth another try."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


def download(
    url: str, target: Path, network: Network, budget: Budget, report: Report = lambda done, total: None
) -> None:
    """Download a URL to a file, which appears when it is complete.

    ``TARGET.part``, left by an interrupted download, is resumed if the server can send the rest and its file is the
    same (a strong ETag, or its time); otherwise the download starts again.

    Args:
        url: an http or https URL.
        target: the file; its name is not taken from the URL.
        network: limits for downloads.
        budget: the bytes left for all downloads.
        report: called with the bytes that are there, and the size of the whole, or None if the server does not say.

    Raises:
        DownloadError: if it cannot be downloaded.
        UserError: if the disk cannot be written.
    """
    for attempt in range(network.retries + 1):
        try:
            with (
                Deadline(network.timeout, network.stop) as deadline,
                guarded_session(network.allow_private, deadline.connected) as session,
            ):
                _Transfer(session, url, target, network, budget, deadline, report).run()
            return
        except _Interrupted as error:
            if attempt == network.retries:
                raise DownloadError(str(error)) from error
            wait = network.backoff * 2**attempt if error.wait is None else error.wait
            if network.stop.wait(min(wait, LONGEST_WAIT)):
                raise DownloadError("stopped") from error
        except ForbiddenError as error:
            raise DownloadError(str(error)) from error
        except (requests.RequestException, HTTPError, ValueError) as error:
            # Unusual redirects also raise errors of urllib3, urllib and the codec for host names.
            raise DownloadError(f"the URL or the server's response is invalid ({type(error).__name__})") from error


class _Transfer:
    """One try of a download."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        target: Path,
        network: Network,
        budget: Budget,
        deadline: Deadline,
        report: Report,
    ) -> None:
        self.session, self.url, self.target = session, url, target
        self.network, self.budget, self.deadline, self.report = network, budget, deadline, report
        self.part = target.with_name(f"{target.name}.part")
        self.notes = target.with_name(f"{target.name}.part.json")

    def run(self) -> None:
        validator, have = self._left_over()
        headers = {"User-Agent": AGENT, "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": validator}
        try:
            with self._answer(headers) as response:
                self._take(response, have)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            self._check_time()
            raise _Interrupted(_in_words(error)) from error
        with file_errors(self.target):
            self.part.replace(self.target)
            self.notes.unlink(missing_ok=True)

    def _check_time(self) -> None:
        """Raise if the time is up: a connection closed by the deadline looks like the end of a response."""
        if self.network.stop.is_set():
            raise DownloadError("stopped")
        if self.deadline.passed:
            raise _Interrupted(f"below {LEAST_RATE:.0f} bytes/s for {self.network.timeout:g} s")

    def _left_over(self) -> tuple[str, int]:
        """Return the validator of a partial file, to check that the server's file is the same, and its size."""
        try:
            notes = parse_json(self.notes.read_bytes())
            if notes["url"] == self.url and isinstance(notes["validator"], str) and notes["validator"]:
                return notes["validator"], self.part.stat().st_size
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return "", 0

    def _answer(self, headers: dict[str, str]) -> requests.Response:
        """Return the response after all redirects, each checked like the URL itself."""
        url = self.url
        for _ in range(REDIRECTS + 1):
            problem = url_problem(url)
            if problem is not None:
                raise DownloadError(f"redirected to {problem}")
            if self.network.https_only and not url.startswith("https:"):
                raise DownloadError("it leads to an address without encryption (http)")
            self._check_address(url)
            response = self.session.get(
                url,
                headers=headers,
                stream=True,
                timeout=(CONNECT_TIMEOUT, self.network.timeout),
                allow_redirects=False,
            )
            self._check_time()
            if not response.is_redirect:
                return response
            response.close()
            url = _redirected(url, response.headers["location"])
        raise DownloadError(f"more than {REDIRECTS} redirects")

    def _check_address(self, url: str) -> None:
        if self.network.allow_private:
            return
        try:
            check_host(url, by_proxy=select_proxy(url, get_environ_proxies(url)) is not None)
        except (OSError, UnicodeError) as error:
            raise _Interrupted("the host's name cannot be resolved") from error

    def _take(self, response: requests.Response, have: int) -> None:
        status = response.status_code
        if status == 416 and have:  # the server's file is shorter than the partial one, so it has changed
            self._forget()
            raise _Interrupted("the server cannot send the rest", wait=0)
        if status not in (200, 206):
            reason = f"the server answers {status} {(response.reason or '')[:LONGEST_REASON]}".rstrip()
            if status in WORTH_RETRYING:
                raise _Interrupted(reason, _retry_after(response))
            raise DownloadError(reason)
        if status == 206 and _range_start(response) != have:
            self._forget()
            raise _Interrupted("the server sends another part than requested", wait=0)
        if status == 200:
            self._forget()
            have = 0
        encoded = response.headers.get("content-encoding", "identity") != "identity"
        length = response.headers.get("content-length", "")
        total = have + _whole(length) if length.isdecimal() and not encoded else None
        if total is not None and total > self.network.max_bytes:
            raise self._too_large(total)
        if not have:
            validator = "" if encoded else _validator(response)
            replace_file(self.notes, json.dumps({"url": self.url, "validator": validator}).encode())
        got = self._write(response, have, total)
        if total is not None and got != total:
            raise _Interrupted(f"cut short: {got} of {total} bytes")

    def _write(self, response: requests.Response, have: int, total: int | None) -> int:
        got = have
        with file_errors(self.part):
            stream = self.part.open("ab" if have else "wb")
        with stream:
            for chunk in response.iter_content(CHUNK):
                self._check_time()
                self.deadline.received(len(chunk))
                got += len(chunk)
                if got > self.network.max_bytes:
                    stream.close()
                    raise self._too_large(got)
                if not self.budget.take(len(chunk)):
                    most = in_megabytes(self.network.max_total)
                    raise DownloadError(f"all downloads together have reached --max-total ({most})")
                with file_errors(self.part):
                    stream.write(chunk)
                self.report(got, total)
            self._check_time()
            with file_errors(self.part):
                stream.flush()
                os.fsync(stream.fileno())
        return got

    def _too_large(self, size: int) -> DownloadError:
        self._forget()
        return DownloadError(
            f"{in_megabytes(size)} or more, above {self.network.limit} ({in_megabytes(self.network.max_bytes)})"
        )

    def _forget(self) -> None:
        """Delete the partial file."""
        with file_errors(self.part):
            if self.part.exists():
                self.budget.give_back(self.part.stat().st_size)
            self.part.unlink(missing_ok=True)
            self.notes.unlink(missing_ok=True)


def _validator(response: requests.Response) -> str:
    """Return the value for ``If-Range``: a strong ETag, or the time of the last change; empty without both."""
    etag = response.headers.get("etag", "")
    if etag.startswith('"') and etag.isascii() and etag.isprintable():
        return etag
    modified = response.headers.get("last-modified", "")
    return modified if modified.isascii() and modified.isprintable() else ""


def _range_start(response: requests.Response) -> int | None:
    unit, _, rest = response.headers.get("content-range", "").partition(" ")
    start = rest.partition("-")[0]
    return _whole(start) if unit == "bytes" and start.isdecimal() else None


def _whole(digits: str) -> int:
    """Return a number of bytes; impossibly long numbers become one that is too large for any disk."""
    return int(digits[-MOST_DIGITS:]) if len(digits.lstrip("0")) <= MOST_DIGITS else 10**MOST_DIGITS


def _redirected(url: str, location: str) -> str:
    try:
        return requote_uri(urljoin(url, location))
    except ValueError as error:
        raise DownloadError("redirected to an invalid URL") from error


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds to wait, which the server gives as a number or as a date; None if it gives neither."""
    try:
        return Retry().parse_retry_after(response.headers.get("retry-after", ""))
    except (InvalidHeader, OverflowError, ValueError):
        return None


def _in_words(error: requests.RequestException) -> str:
    if isinstance(error, requests.exceptions.SSLError):
        return "the server's certificate is not valid"
    if isinstance(error, requests.exceptions.ProxyError):
        return "the proxy refuses or cannot be reached"
    if isinstance(error, requests.ConnectTimeout):
        return "the server cannot be reached"
    if isinstance(error, requests.Timeout):
        return "the server does not answer in time"
    return "the connection fails or was cut"
