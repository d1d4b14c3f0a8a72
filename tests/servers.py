"""Local web servers that can be made to misbehave; tests/conftest.py makes their fixtures known."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class Server:
    """A local web server that keeps a log and can be made to misbehave.

    Attributes:
        files: path -> content.
        ways: path -> how it answers: "range" (with an ETag), "plain", "cut" (the first answer ends in the middle),
            "cut plain", "endless", "gzip", "moved TARGET", or a status such as "404".
        log: the path and the Range header of each request.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.ways: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self.log: list[tuple[str, str | None]] = []
        self.cut: set[str] = set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.handle_error = lambda *arguments: None  # type: ignore[method-assign]  (a client hung up)
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}{path}"

    def put(self, path: str, content: bytes, way: str = "range") -> str:
        self.files[path], self.ways[path] = content, way
        return self.url(path)

    def asked(self, path: str) -> list[str | None]:
        return [range_ for asked, range_ in self.log if asked == path]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path, wanted = handler.path, handler.headers.get("Range")
        self.log.append((path, wanted))
        way, content = self.ways.get(path, "404"), self.files.get(path, b"")
        if way.startswith("moved "):
            self.reply(handler, 302, b"", {"Location": way.removeprefix("moved ")})
        elif way.isdecimal():
            self.reply(handler, int(way), b"", {})
            self.ways[path] = "range" if way == "503" else way  # busy, but only once
        elif way == "endless":
            handler.send_response(200)
            handler.end_headers()
            try:
                while True:
                    handler.wfile.write(b"x" * 50_000)
            except OSError:
                handler.close_connection = True
        else:
            tag = self.tags.get(path, '"one"')
            headers = {} if "plain" in way else {"ETag": tag, "Accept-Ranges": "bytes"}
            status, start = 200, 0
            if wanted and "plain" not in way and handler.headers.get("If-Range", tag) == tag:
                status, start = 206, int(wanted.removeprefix("bytes=").rstrip("-"))
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            cut = way.startswith("cut") and path not in self.cut
            self.cut.add(path)
            self.reply(handler, status, content[start:], headers, len(content[start:]) // 2 if cut else None)

    @staticmethod
    def reply(
        handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], sent: int | None = None
    ) -> None:
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[:sent])
        handler.close_connection = sent is not None


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "*")
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


class RawServer:
    """A local server that answers every request with what ``say`` does with the connection."""

    def __init__(self) -> None:
        self.say: Callable[[socket.socket], None] = lambda connection: None
        self.ended = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/photo.jpg"
        threading.Thread(target=self._serve, daemon=True).start()

    def send(self, *parts: bytes, pause: float = 0.0, wait: bool = False) -> None:
        """Answer with these bytes, then hang up; ``wait`` for the client to ask first."""

        def say(connection: socket.socket) -> None:
            if wait:
                connection.recv(4096)
            for part in parts:
                if self.ended.wait(pause) if pause else self.ended.is_set():
                    return
                connection.sendall(part)

        self.say = say

    def drip(self, begin: bytes, drop: bytes = b"x", pause: float = 0.02) -> None:
        """Answer with the begin, then for ever with one drop after the other."""

        def say(connection: socket.socket) -> None:
            connection.sendall(begin)
            while not self.ended.wait(pause):
                connection.sendall(drop)

        self.say = say

    def close(self) -> None:
        self.ended.set()
        self.socket.close()

    def _serve(self) -> None:
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self.say(connection)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass


@pytest.fixture
def raw_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[RawServer]:
    monkeypatch.setenv("NO_PROXY", "*")
    running = RawServer()
    yield running
    running.close()
