import contextlib
import json
import random
import threading
import time
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.download import transfer
from gramgan_plugin.utils.download.limits import Budget, Network
from gramgan_plugin.utils.download.transfer import DownloadError, download

CONTENT = np.random.default_rng(0).bytes(300_000)


def network(**options: Any) -> Network:
    return Network(**{"allow_private": True, "backoff": 0.01, "timeout": 5.0, **options})


def get(url: str, folder: Path, budget: int = 10**9, **options: Any) -> bytes:
    download(url, folder / "file", network(**options), Budget(budget))
    return (folder / "file").read_bytes()


def leave_part(folder: Path, url: str, content: bytes, validator: str) -> None:
    """What a killed process leaves."""
    (folder / "file.part").write_bytes(content)
    (folder / "file.part.json").write_text(json.dumps({"url": url, "validator": validator}))


class TestDownload:
    def test_smoke(self, server: Any, tmp_path: Path) -> None:
        assert get(server.put("/a", CONTENT), tmp_path) == CONTENT
        assert [path.name for path in tmp_path.iterdir()] == ["file"]

    def test_feature_cut_connection_is_resumed(self, server: Any, tmp_path: Path) -> None:
        assert get(server.put("/a", CONTENT, "cut"), tmp_path) == CONTENT
        first, second = server.asked("/a")
        assert first is None
        assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 150_000

    def test_feature_cut_without_range_starts_again(self, server: Any, tmp_path: Path) -> None:
        assert get(server.put("/a", CONTENT, "cut plain"), tmp_path) == CONTENT
        assert server.asked("/a") == [None, None]

    def test_feature_killed_process_is_resumed(self, server: Any, tmp_path: Path) -> None:
        url = server.put("/a", CONTENT)
        leave_part(tmp_path, url, CONTENT[:123_456], '"one"')
        assert get(url, tmp_path) == CONTENT
        assert server.asked("/a") == ["bytes=123456-"]

    def test_feature_changed_file_starts_again(self, server: Any, tmp_path: Path) -> None:
        url = server.put("/a", CONTENT)
        leave_part(tmp_path, url, b"y" * 1000, '"older"')
        assert get(url, tmp_path) == CONTENT

    @pytest.mark.parametrize("validator", ["", 'W/"weak"'])
    def test_feature_part_of_nobody_knows_what(self, server: Any, tmp_path: Path, validator: str) -> None:
        server.tags["/a"] = validator
        url = server.put("/a", CONTENT, "cut")
        assert get(url, tmp_path) == CONTENT
        assert server.asked("/a") == [None, None]

    def test_feature_part_longer_than_the_file(self, server: Any, tmp_path: Path) -> None:
        url = server.put("/a", CONTENT, "416")
        leave_part(tmp_path, url, CONTENT * 2, '"one"')
        with pytest.raises(DownloadError, match="416"):
            get(url, tmp_path)
        assert not (tmp_path / "file.part").exists()

    def test_feature_busy_server_is_asked_again(self, server: Any, tmp_path: Path) -> None:
        assert get(server.put("/a", CONTENT, "503"), tmp_path) == CONTENT

    @pytest.mark.parametrize("status", ["404", "403", "410"])
    def test_exception_status(self, server: Any, tmp_path: Path, status: str) -> None:
        with pytest.raises(DownloadError, match=f"the server answers {status}"):
            get(server.put("/a", b"", status), tmp_path)
        assert len(server.log) == 1

    def test_exception_retries_end(self, server: Any, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match="500"):
            get(server.put("/a", b"", "500"), tmp_path, retries=2)
        assert len(server.log) == 3

    @pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://a.org/x", "gopher://127.0.0.1:1/"])
    def test_exception_redirect_elsewhere(self, server: Any, tmp_path: Path, target: str) -> None:
        with pytest.raises(DownloadError, match=r"redirected to .*not a URL"):
            get(server.put("/a", b"", f"moved {target}"), tmp_path)
        assert not list(tmp_path.iterdir())

    def test_feature_redirects(self, server: Any, tmp_path: Path) -> None:
        server.put("/b", CONTENT)
        assert get(server.put("/a", b"", "moved /b"), tmp_path) == CONTENT
        with pytest.raises(DownloadError, match="more than 5 redirects"):
            get(server.put("/loop", b"", "moved /loop"), tmp_path)
        assert len(server.asked("/loop")) == 6

    def test_exception_private_address(self, server: Any, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match="a private network"):
            get(server.put("/a", CONTENT), tmp_path, allow_private=False)
        assert not server.log

    def test_exception_no_encryption(self, server: Any, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match=r"without encryption \(http\)"):
            get(server.put("/a", CONTENT), tmp_path, https_only=True)
        assert not server.log

    def test_feature_report(self, server: Any, tmp_path: Path) -> None:
        """Of a resumed download: what is there counts."""
        url, reports = server.put("/a", CONTENT), []
        leave_part(tmp_path, url, CONTENT[:123_456], '"one"')
        download(url, tmp_path / "file", network(), Budget(10**9), lambda *report: reports.append(report))
        assert reports[0] == (123_456 + 4096, 300_000)
        assert reports[-1] == (300_000, 300_000)
        reports.clear()
        server.put("/endless", b"", "endless")
        with pytest.raises(DownloadError, match="above the published size"):
            download(
                server.url("/endless"),
                tmp_path / "file",
                network(max_bytes=50_000, limit="the published size"),
                Budget(10**9),
                lambda *report: reports.append(report),
            )
        assert reports[-1] == (12 * 4096, None)

    def test_exception_too_large(self, server: Any, tmp_path: Path) -> None:
        with pytest.raises(DownloadError, match=r"0\.3 MB or more, above --max-bytes \(0\.1 MB\)"):
            get(server.put("/a", CONTENT), tmp_path, max_bytes=100_000)
        with pytest.raises(DownloadError, match="above --max-bytes"):
            get(server.put("/endless", b"", "endless"), tmp_path, max_bytes=400_000)
        assert not list(tmp_path.iterdir())

    def test_exception_no_server(self, server: Any, tmp_path: Path) -> None:
        url = server.url("/a").replace(str(server.http.server_address[1]), "1")
        with pytest.raises(DownloadError, match="the connection fails"):
            get(url, tmp_path, retries=0)

    def test_exception_disk(self, server: Any, tmp_path: Path) -> None:
        (tmp_path / "file.part").mkdir()
        with pytest.raises(UserError, match=r"file\.part.*a folder where a file should be"):
            get(server.put("/a", CONTENT), tmp_path)


OK = b"HTTP/1.1 200 OK\r\n"
DIGITS = b"9" * 5000


class TestHostileServers:
    """No answer ends more than its own download."""

    @pytest.mark.parametrize(
        "target",
        [
            b"http://[::1",
            b"http://\xff\xfe/",
            b"//\xff\xfe\xc3\x28/x",
            b"http://a..b/",
            b"http://" + b"a" * 300 + b".org/",
            b"http://" + b"a" * 9000 + b"/",
            b"http://127.0.0.1:" + DIGITS + b"/",
            b"http://127.0.0.1:99999/",
            b"http://\xd9\xa1.example:\xd9\xa1/",
            b"http://%zz%00/",
            b"http:///",
            b"http:",
            b"",
        ],
    )
    def test_exception_redirect(self, raw_server: Any, tmp_path: Path, target: bytes) -> None:
        raw_server.send(b"HTTP/1.1 302 Found\r\nLocation: " + target + b"\r\nContent-Length: 0\r\n\r\n")
        with pytest.raises(DownloadError) as raised:
            get(raw_server.url, tmp_path, retries=0)
        assert len(str(raised.value)) < 300

    @pytest.mark.parametrize(
        ("answer", "reason"),
        [
            (OK + b"Content-Length: " + DIGITS + b"\r\n\r\nxx", "above --max-bytes"),
            (b"HTTP/1.1 206 Partial\r\nContent-Range: bytes " + DIGITS + b"-9/9\r\n\r\nxx", "another part"),
            (b"HTTP/1.1 503 Busy\r\nRetry-After: " + DIGITS + b"\r\nContent-Length: 0\r\n\r\n", "503 Busy"),
            (b"HTTP/1.1 404 " + b"no" * 30_000 + b"\r\nContent-Length: 0\r\n\r\n", "404 nono"),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n" + DIGITS + b"\r\nx", "cut"),
            (OK + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nx", "is invalid"),
            (OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nxxxxx", "ContentDecodingError"),
            (OK + b"A: b\r\n" * 500 + b"\r\n", "fails or was cut"),
            (OK + b"A: " + b"b" * 70_000 + b"\r\n\r\n", "fails or was cut"),
            (b"HTTP/1.1 " + DIGITS + b" OK\r\n\r\n", "fails or was cut"),
            (b"\xff\xfe\0\0", "fails or was cut"),
            (b"", "fails or was cut"),
        ],
    )
    def test_exception_answer(self, raw_server: Any, tmp_path: Path, answer: bytes, reason: str) -> None:
        raw_server.send(answer)
        with pytest.raises(DownloadError, match=reason) as raised:
            get(raw_server.url, tmp_path, retries=0)
        assert len(str(raised.value)) < 200
        assert not (tmp_path / "file").exists()

    def test_feature_mutated_answers(self, raw_server: Any, tmp_path: Path) -> None:
        draw = random.Random(7)
        whole = OK + b'Content-Length: 9\r\nETag: "a"\r\nLocation: /\r\nContent-Type: image/png\r\n\r\n' + b"photobyte"
        for _ in range(150):
            answer = bytearray(whole)
            for _ in range(draw.randint(1, 4)):
                place = draw.randrange(len(answer))
                answer[place : place + draw.choice((0, 1, 4))] = draw.choice(
                    (b"", b"\0", b"\xff", b"\r\n", b"302", b"206", b"[", b"9" * 20, draw.randbytes(3))
                )
            raw_server.send(bytes(answer))
            with contextlib.suppress(DownloadError):
                get(raw_server.url, tmp_path, retries=0)

    @pytest.mark.parametrize(
        "begin",
        [
            OK + b"Content-Length: 100000000\r\n\r\n",
            OK + b"\r\n",
            OK + b"X-More: ",
            b"HTTP/1.1 20",
            b"",
        ],
    )
    def test_exception_a_byte_now_and_then(self, raw_server: Any, tmp_path: Path, begin: bytes) -> None:
        raw_server.drip(begin)
        with pytest.raises(DownloadError, match=r"^below 1000 bytes/s for 0\.5 s$"):
            get(raw_server.url, tmp_path, retries=0, timeout=0.5)
        assert not (tmp_path / "file").exists()

    def test_exception_a_byte_now_and_then_in_chunks(self, raw_server: Any, tmp_path: Path) -> None:
        raw_server.drip(OK + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n")
        with pytest.raises(DownloadError, match="below 1000 bytes/s"):
            get(raw_server.url, tmp_path, retries=0, timeout=0.5)

    def test_exception_a_byte_now_and_then_of_encryption(self, raw_server: Any, tmp_path: Path) -> None:
        raw_server.drip(b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc")  # a long ServerHello
        with pytest.raises(DownloadError, match="below 1000 bytes/s"):
            get(raw_server.url.replace("http:", "https:"), tmp_path, retries=0, timeout=0.5)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_exception_slow_proxy(
        self, raw_server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
    ) -> None:
        monkeypatch.delenv("NO_PROXY")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.setenv(f"{scheme}_proxy", raw_server.url.removesuffix("/photo.jpg"))
        raw_server.drip(b"HTTP/1.1 200 OK\r\nX-More: ")
        with pytest.raises(DownloadError, match="below 1000 bytes/s"):
            get(f"{scheme}://photos.invalid/a.jpg", tmp_path, retries=0, timeout=0.5, allow_private=False)

    def test_exception_fast_begin(self, raw_server: Any, tmp_path: Path) -> None:
        """What came at once buys no time for what does not."""
        raw_server.drip(OK + b"Content-Length: 100000000\r\n\r\n" + bytes(3_000_000))
        with pytest.raises(DownloadError, match="below 1000 bytes/s"):
            get(raw_server.url, tmp_path, retries=0, timeout=0.5)

    def test_feature_slow_is_good_enough(self, raw_server: Any, tmp_path: Path) -> None:
        """More than the timeout in all, at many times the least rate."""
        parts = [CONTENT[place : place + 8000] for place in range(0, 120_000, 8000)]
        raw_server.send(OK + b"Content-Length: 120000\r\n\r\n", *parts, pause=0.1)
        assert get(raw_server.url, tmp_path, retries=0, timeout=1.0) == CONTENT[:120_000]

    def test_feature_content_of_a_redirect_is_not_read(self, raw_server: Any, server: Any, tmp_path: Path) -> None:
        target = server.put("/a", CONTENT).encode()
        raw_server.drip(b"HTTP/1.1 302 Found\r\nLocation: " + target + b"\r\n\r\n", bytes(10_000), pause=0.001)
        assert get(raw_server.url, tmp_path, retries=0) == CONTENT

    @pytest.mark.parametrize("begin", [OK + b"Content-Length: 100000000\r\n\r\n", OK + b"X-More: ", b""])
    def test_feature_stop(self, raw_server: Any, tmp_path: Path, begin: bytes) -> None:
        raw_server.drip(begin)
        limits, said = network(timeout=1000.0), []

        def ask() -> None:
            try:
                download(raw_server.url, tmp_path / "file", limits, Budget(10**9))
            except DownloadError as error:
                said.append(str(error))

        thread = threading.Thread(target=ask, daemon=True)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        limits.stop.set()
        thread.join(20)
        assert said == ["stopped"]


class TestRetryAfter:
    def test_feature_number_or_date(self) -> None:
        in_a_while = formatdate(time.time() + 100, usegmt=True)
        waits = [self.asked("7"), self.asked("Wed, 21 Oct 2015 07:28:00 GMT"), self.asked(in_a_while)]
        assert waits[:2] == [7, 0]
        assert waits[2] == pytest.approx(100, abs=10)

    @staticmethod
    def asked(header: str) -> float | None:
        response = requests.Response()
        response.headers["Retry-After"] = header
        return transfer._retry_after(response)

    @pytest.mark.parametrize("header", ["", "soon", "-3", "1e3", "9" * 5000, "Wed, 21 Oct 99999 07:28:00 GMT"])
    def test_exception_neither_number_nor_date(self, header: str) -> None:
        assert self.asked(header) is None
