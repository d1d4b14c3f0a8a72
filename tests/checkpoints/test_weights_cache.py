"""Public weights from a local server that breaks off, stalls and lies."""

import hashlib
import io
import json
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from gramgan_plugin.checkpoints import weights_cache
from gramgan_plugin.checkpoints.public_weights import WEIGHTS, PublicWeights
from gramgan_plugin.checkpoints.weights_cache import cache_folder, ensure, fetch, find, resolve_weights, verify
from gramgan_plugin.errors import UserError
from tests.messages import assert_message


def saved(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def checkpoint(seed: int) -> bytes:
    noise = torch.randn(64, 16, 3, 3, generator=torch.Generator().manual_seed(seed))
    return saved({"params": {"conv_first.weight": noise}})


CONTENT, OTHER = checkpoint(0), checkpoint(1)
PAGE = b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"


def described(content: bytes, url: str) -> PublicWeights:
    return PublicWeights("tiny", "tiny.pth", url, "MIT", "a test", hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache; torch.hub's is empty. Downloads wait for little."""
    monkeypatch.setenv("GRAMGAN_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    limits = weights_cache.network_for
    monkeypatch.setattr(weights_cache, "network_for", lambda w: replace(limits(w), backoff=0.01, timeout=0.5))
    return tmp_path / "cache"


@pytest.fixture
def tiny(server: Any, monkeypatch: pytest.MonkeyPatch) -> PublicWeights:
    """Weights on the server."""
    weights = described(CONTENT, server.put("/tiny.pth", CONTENT))
    monkeypatch.setitem(WEIGHTS, "tiny", weights)
    return weights


def place(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


class TestFolder:
    def test_the_users_cache_without_the_variable(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("GRAMGAN_WEIGHTS", "")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_folder().name == "weights"
        assert cache_folder().parent.name == "gramgan-plugin"
        if sys.platform == "linux":
            assert cache_folder().is_relative_to(tmp_path / "xdg")

    def test_home(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("GRAMGAN_WEIGHTS", "~/w")
        assert cache_folder() == Path.home() / "w"


class TestShipped:
    @pytest.fixture
    def shipped(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(weights_cache, "SHIPPED", tmp_path / "package")
        monkeypatch.setitem(WEIGHTS, "tiny", described(CONTENT, ""))
        return tmp_path / "package/tiny.pth"

    def test_there(self, shipped: Path, folder: Path) -> None:
        place(shipped, CONTENT)
        place(folder / "tiny.pth", OTHER)
        assert resolve_weights("tiny") == fetch(WEIGHTS["tiny"]) == find(WEIGHTS["tiny"]) == shipped

    def test_damaged(self, shipped: Path) -> None:
        place(shipped, OTHER)
        for use in (resolve_weights, lambda name: fetch(WEIGHTS[name])):
            with pytest.raises(UserError, match=r"^tiny: .*tiny.pth.* comes with this package"):
                use("tiny")
        shipped.unlink()
        with pytest.raises(UserError, match=r"^tiny: .*tiny.pth: missing or damaged"):
            resolve_weights("tiny")
        assert find(WEIGHTS["tiny"]) is None


class TestResolve:
    def test_a_path_is_returned_as_it_is(self, tiny: PublicWeights, server: Any, tmp_path: Path) -> None:
        file = place(tmp_path / "mine.pth", b"anything")
        assert resolve_weights(str(file)) == resolve_weights(file) == file
        assert resolve_weights(tmp_path) == tmp_path
        assert not server.log

    def test_a_file_comes_before_a_name_but_a_folder_does_not(
        self, tiny: PublicWeights, folder: Path, workdir: Path
    ) -> None:
        (workdir / "tiny").mkdir()
        assert resolve_weights("tiny") == folder / "tiny.pth"
        (workdir / "tiny").rmdir()
        (workdir / "tiny").touch()
        assert resolve_weights("tiny") == Path("tiny")

    def test_downloaded_once(self, tiny: PublicWeights, server: Any, folder: Path) -> None:
        assert resolve_weights("tiny").read_bytes() == CONTENT
        assert resolve_weights("tiny") == folder / "tiny.pth"
        assert len(server.log) == 1
        assert names(folder) == {"tiny.pth", "incoming/tiny.pth.lock"}

    def test_torch_hubs(self, tiny: PublicWeights, server: Any, folder: Path, tmp_path: Path) -> None:
        theirs = place(tmp_path / "hub/checkpoints/tiny.pth", CONTENT)
        assert resolve_weights("tiny") == theirs
        ours = place(folder / "tiny.pth", CONTENT)
        assert resolve_weights("tiny") == ours
        assert not server.log

    @pytest.mark.parametrize(
        ("given", "meant"),
        [("tinny", "'tiny'"), ("RealESRGAN_x4pluss", "'RealESRGAN_x4plus'"), ("net_g5.pth", "net_g_5")],
    )
    def test_neither(self, tiny: PublicWeights, workdir: Path, given: str, meant: str) -> None:
        place(workdir / "net_g_5.pth", b"")
        with pytest.raises(UserError, match=f"^{given}: neither a file nor a name .*did you mean.*{meant}"):
            resolve_weights(given)

    def test_neither_in_a_folder(self, tmp_path: Path) -> None:
        place(tmp_path / "a/net_g_latest.pth", b"")
        with pytest.raises(UserError, match=r"did you mean '.*a/net_g_latest\.pth'"):
            resolve_weights(tmp_path / "a/net_g_lastest.pth")

    @pytest.mark.parametrize("given", ["no/such/folder/x.pth", "a\x1b[2J\n", "\0", "~nobody-of-this-name/x", "\udcff"])
    def test_nothing_near(self, workdir: Path, given: str) -> None:
        with pytest.raises(UserError, match=r"`basicsr weights list` shows the names$") as caught:
            resolve_weights(given)
        assert str(caught.value).isprintable()

    def test_endless_name(self) -> None:
        with pytest.raises(UserError, match="a name that is too long") as caught:
            resolve_weights("x" * 5000)
        assert len(str(caught.value)) < 400


class TestFetch:
    def test_cut_off(self, tiny: PublicWeights, server: Any) -> None:
        server.put("/tiny.pth", CONTENT, "cut")
        assert fetch(tiny).read_bytes() == CONTENT
        (_, first), (_, second) = server.log
        assert first is None
        assert second.startswith("bytes=")

    def test_killed(self, tiny: PublicWeights, server: Any, folder: Path) -> None:
        """What another process left is resumed, and what it had not yet checked is not downloaded again."""
        place(folder / "incoming/tiny.pth.part", CONTENT[:12_345])
        notes = json.dumps({"url": tiny.url, "validator": '"one"'})
        place(folder / "incoming/tiny.pth.part.json", notes.encode())
        assert fetch(tiny).read_bytes() == CONTENT
        assert server.log == [("/tiny.pth", "bytes=12345-")]
        (folder / "tiny.pth").rename(folder / "incoming/tiny.pth")
        assert fetch(tiny).read_bytes() == CONTENT
        assert len(server.log) == 1

    def test_foreign_bytes_in_a_part(self, tiny: PublicWeights, server: Any, folder: Path) -> None:
        """A resumed download of another file is noticed, and forgotten."""
        place(folder / "incoming/tiny.pth.part", OTHER[:12_345])
        notes = json.dumps({"url": tiny.url, "validator": '"one"'})
        place(folder / "incoming/tiny.pth.part.json", notes.encode())
        with pytest.raises(UserError, match="is not what it should be"):
            fetch(tiny)
        assert names(folder) == {"incoming/tiny.pth.lock"}
        assert fetch(tiny).read_bytes() == CONTENT

    def test_busy(self, tiny: PublicWeights, server: Any) -> None:
        server.put("/tiny.pth", CONTENT, "503")
        assert fetch(tiny).read_bytes() == CONTENT

    @pytest.mark.parametrize("sent", [b"", CONTENT[:20_000]], ids=["at once", "in the middle"])
    def test_stalled(self, raw_server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
        raw_server.drip(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + sent)
        limits = weights_cache.network_for
        monkeypatch.setattr(weights_cache, "network_for", lambda w: replace(limits(w), retries=0))
        with pytest.raises(UserError, match=r"^tiny: .*below 1000 bytes/s for 0\.5 s"):
            fetch(described(CONTENT, raw_server.url))
        assert not (folder / "tiny.pth").exists()

    @pytest.mark.parametrize(
        ("content", "way", "words"),
        [
            (OTHER, "range", f"SHA-256 {hashlib.sha256(OTHER).hexdigest()} instead of"),
            (CONTENT[:-9], "range", "a damaged checkpoint"),
            (CONTENT + b"\0", "range", "above what it may have"),
            (CONTENT, "endless", "above what it may have"),
            (PAGE, "range", "a web page"),
            (b"", "range", "an empty file"),
            (b"", "404", "404 Not Found"),
            (b"", "moved file:///etc/passwd", "redirected to"),
            (b"", "moved /tiny.pth", "more than 5 redirects"),
        ],
    )
    def test_a_server_that_lies(
        self, tiny: PublicWeights, server: Any, folder: Path, content: bytes, way: str, words: str
    ) -> None:
        assert len(OTHER) == len(CONTENT)
        server.put("/tiny.pth", content, way)
        with pytest.raises(UserError, match=f"^tiny: {tiny.url} .*{words}") as caught:
            fetch(tiny)
        assert str(caught.value).endswith(str(folder)), "where else to put it"
        assert str(caught.value).isprintable()
        assert names(folder) == {"incoming/tiny.pth.lock"}
        server.put("/tiny.pth", CONTENT)
        assert fetch(tiny).read_bytes() == CONTENT

    def test_no_network(self, tiny: PublicWeights, folder: Path) -> None:
        away = replace(tiny, url="http://127.0.0.1:1/tiny.pth")
        with pytest.raises(UserError, match=f"^tiny: {away.url} cannot be downloaded: the connection .*{folder}$"):
            fetch(away)
        place(folder / "tiny.pth", CONTENT)
        assert fetch(away) == folder / "tiny.pth"

    def test_content_that_can_run_code(self, server: Any, folder: Path) -> None:
        """Even if it is the published file."""
        content = saved({"params": Path("x")})
        weights = described(content, server.put("/tiny.pth", content))
        with pytest.raises(UserError, match="not a checkpoint of plain tensors"):
            fetch(weights)
        assert names(folder) == {"incoming/tiny.pth.lock"}

    def test_no_encryption(self, tiny: PublicWeights) -> None:
        assert not weights_cache.network_for(tiny).https_only
        assert all(
            weights_cache.network_for(weights).https_only
            for weights in WEIGHTS.values()
            if weights.url and weights is not tiny
        )

    def test_unknown_size_and_prefix(self, tiny: PublicWeights, server: Any) -> None:
        vague = replace(tiny, size=None, sha256=tiny.sha256[:8])
        assert fetch(vague).read_bytes() == CONTENT
        server.put("/tiny.pth", OTHER)
        expected = f"SHA-256 {hashlib.sha256(OTHER).hexdigest()[:8]} instead of 01234567;"
        with pytest.raises(UserError, match=expected):
            fetch(replace(vague, file="other.pth", sha256="01234567"))

    def test_the_folder_is_a_file(self, tiny: PublicWeights, folder: Path) -> None:
        folder.touch()
        with pytest.raises(UserError, match=f"{folder}.*move it out of the way"):
            fetch(tiny)

    def test_progress(self, tiny: PublicWeights, capsys: pytest.CaptureFixture[str]) -> None:
        fetch(tiny)
        assert capsys.readouterr().err == "tiny: 0.0 of 0.0 MB\n"

    def test_two_at_once(self, raw_server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The second waits for the first, and does not ask the server."""
        asked, answer = threading.Semaphore(0), threading.Event()
        connections = []

        def say(connection: Any) -> None:
            connections.append(connection)
            asked.release()
            answer.wait(20)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT)

        raw_server.say = say
        limits = weights_cache.network_for
        monkeypatch.setattr(weights_cache, "network_for", lambda w: replace(limits(w), timeout=30.0))
        monkeypatch.setattr(sys, "stderr", said := io.StringIO())
        weights, found = described(CONTENT, raw_server.url), []
        threads = [threading.Thread(target=lambda: found.append(fetch(weights)), daemon=True) for _ in range(2)]
        threads[0].start()
        assert asked.acquire(timeout=20)
        threads[1].start()
        until = time.monotonic() + 20
        while "tiny: another process downloads it; waiting" not in said.getvalue() and time.monotonic() < until:
            time.sleep(0.01)
        answer.set()
        for thread in threads:
            thread.join(20)
        assert found == [folder / "tiny.pth"] * 2
        assert len(connections) == 1
        assert "waiting" in said.getvalue()


class TestDamaged:
    @pytest.fixture(params=["changed", "cut", "other", "empty"])
    def damaged(self, request: pytest.FixtureRequest, tiny: PublicWeights, folder: Path) -> Path:
        changed = bytearray(CONTENT)
        changed[len(CONTENT) // 2] ^= 1
        contents = {"changed": bytes(changed), "cut": CONTENT[:-1], "other": checkpoint(2), "empty": b""}
        return place(folder / "tiny.pth", contents[request.param])

    def test_reported_and_replaced(self, tiny: PublicWeights, server: Any, damaged: Path) -> None:
        assert find(tiny) == damaged
        problem = verify(tiny, damaged)
        assert problem
        with pytest.raises(UserError) as caught:
            ensure(tiny)
        assert_message(caught.value, f"tiny: {damaged}", problem, "`basicsr weights fetch tiny`")
        assert not server.log
        assert fetch(tiny) == damaged
        assert verify(tiny, damaged) is None
        assert ensure(tiny) == damaged

    def test_kept_without_a_network(self, tiny: PublicWeights, damaged: Path) -> None:
        before = damaged.read_bytes()
        with pytest.raises(UserError, match="cannot be downloaded"):
            fetch(replace(tiny, url="http://127.0.0.1:1/tiny.pth"))
        assert damaged.read_bytes() == before

    def test_torch_hubs_is_left_alone(self, tiny: PublicWeights, damaged: Path, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "hub/checkpoints").mkdir(parents=True)
        theirs = damaged.rename(tmp_path / "hub/checkpoints/tiny.pth")
        before = theirs.read_bytes()
        assert fetch(tiny) == folder / "tiny.pth"
        assert ensure(tiny) == folder / "tiny.pth"
        assert theirs.read_bytes() == before


def test_too_large_a_file_is_not_read(tiny: PublicWeights, tmp_path: Path) -> None:
    with (tmp_path / "huge.pth").open("wb") as file:
        file.truncate(2**40)
    assert f"1,099,511,627,776 bytes, above the {len(CONTENT):,}" in verify(tiny, tmp_path / "huge.pth")
