import csv
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image as PillowImage

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.collect import measuring as measuring_module
from gramgan_plugin.prepare.collect.collector import CollectOptions, Outcome, collect_photos
from gramgan_plugin.prepare.collect.criteria import Criteria
from gramgan_plugin.utils.download.limits import Network

LIMITS = Criteria(min_side=200)
Encode = Callable[..., bytes]


def collect(*sources: Path, out: Path, criteria: Criteria = LIMITS, **options: Any) -> Outcome:
    network = Network(allow_private=True, backoff=0.01, retries=1)
    return collect_photos(sources, out, criteria, network, CollectOptions(progress=False, **options))


def records(out: Path) -> dict[str, dict[str, Any]]:
    rows = [json.loads(line) for line in (out / "collected.jsonl").read_text().splitlines()]
    return {row["from"]: row for row in rows}


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture
def source(tmp_path: Path, photos: dict[str, np.ndarray], encode: Encode) -> Path:
    """Four good photos and one of each kind that is dropped."""
    folder = tmp_path / "source"
    (folder / "sub").mkdir(parents=True)
    coffee, chelsea = photos["coffee"], photos["chelsea"]
    files = {
        "coffee.png": encode(coffee, ".png"),
        "sub/Chelsea the cat!.jpg": encode(chelsea),
        "sub/прогулка.jpg": encode(photos["rocket"]),
        "astronaut.jpg": encode(photos["astronaut"]),
        "copy.png": encode(coffee, ".png"),
        "less.jpg": encode(cv2.resize(coffee, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA), quality=90),
        "blurred.jpg": encode(cv2.GaussianBlur(photos["astronaut"], (0, 0), 2)),
        "enlarged.jpg": encode(cv2.resize(chelsea, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)),
        "bad.jpg": encode(photos["rocket"], quality=30),
        "small.png": encode(coffee[:150, :300], ".png"),
        "cut.jpg": encode(coffee)[:-5000],
        "empty.png": b"",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


class TestCollectPhotos:
    def test_smoke(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        outcome = collect(source, out=out, licence="CC BY")
        seen = {name.removeprefix(f"{source}/"): row for name, row in records(out).items()}
        assert {name: row["result"] for name, row in seen.items()} == {
            "coffee.png": "kept",
            "sub/Chelsea the cat!.jpg": "kept",
            "sub/прогулка.jpg": "kept",
            "astronaut.jpg": "kept",
            "copy.png": "duplicate",
            "less.jpg": "similar",
            "blurred.jpg": "blurred",
            "enlarged.jpg": "upscaled",
            "bad.jpg": "compressed",
            "small.png": "small",
            "cut.jpg": "unreadable",
            "empty.png": "unreadable",
        }
        assert outcome.counts["kept"] == 4
        assert not outcome.failed
        kept = tree(out / "photos")
        for name in ("coffee.png", "sub/Chelsea the cat!.jpg", "sub/прогулка.jpg"):
            assert kept[seen[name]["photo"]] == (source / name).read_bytes()
        assert (
            seen["sub/Chelsea the cat!.jpg"]["photo"]
            == seen["sub/Chelsea the cat!.jpg"]["sha256"][:16] + "_Chelsea-the-cat.jpg"
        )
        assert all(name.isascii() for name in kept)
        rows = list(csv.DictReader((out / "sources.csv").open(encoding="utf-8")))
        assert len(rows) == 4
        assert {row["licence"] for row in rows} == {"CC BY"}
        assert "report.html" in {path.name for path in out.iterdir()}

    def test_feature_threads_change_nothing(self, source: Path, tmp_path: Path) -> None:
        one, many = tmp_path / "one", tmp_path / "many"
        collect(source, out=one, workers=1)
        collect(source, out=many, workers=5)
        for name in ("measured.jsonl", "collected.jsonl", "sources.csv", "report.html"):
            assert (one / name).read_bytes() == (many / name).read_bytes()
        assert tree(one / "photos") == tree(many / "photos")

    def test_feature_rerun_measures_nothing(
        self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: dict[str, np.ndarray]
    ) -> None:
        out = tmp_path / "out"
        collect(source, out=out)
        before = {path: path.stat().st_mtime_ns for path in (out / "photos").iterdir()}
        seen: list[int] = []
        examine = measuring_module.examine
        monkeypatch.setattr(measuring_module, "examine", lambda data: seen.append(len(data)) or examine(data))
        collect(source, out=out)
        assert not seen
        assert {path: path.stat().st_mtime_ns for path in (out / "photos").iterdir()} == before
        (source / "coffee.png").write_bytes(cv2.imencode(".png", photos["coffee"][:, :580])[1].tobytes())
        collect(source, out=out)
        assert seen == [(source / "coffee.png").stat().st_size]

    def test_feature_other_limits_sort_anew(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        collect(source, out=out)
        names = set(tree(out / "photos"))
        outcome = collect(source, out=out, criteria=replace(LIMITS, min_side=410))
        assert outcome.counts["small"] > 1
        assert outcome.set_aside > 0
        assert set(tree(out / "photos")) | set(tree(out / "removed")) == names  # nothing is lost
        collect(source, out=out)
        assert set(tree(out / "photos")) == names
        assert not tree(out / "removed")

    def test_feature_files_of_others_stay(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        collect(source, out=out)
        (out / "photos" / "mine.jpg").write_bytes(b"x")
        (out / "photos" / ".half.jpg.tmp").write_bytes(b"x")
        collect(source, out=out)
        assert "mine.jpg" in tree(out / "photos")
        assert ".half.jpg.tmp" not in tree(out / "photos")

    def test_feature_out_inside_the_source(self, source: Path) -> None:
        out = source / "out"
        first = collect(source, out=out)
        assert collect(source, out=out).counts == first.counts

    def test_feature_archives(self, source: Path, tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            for path in sorted(source.rglob("*.*")):
                archive.write(path, path.relative_to(source).as_posix())
            archive.writestr("../evil.png", b"x")
        with tarfile.open(tmp_path / "b.tar.gz", "w:gz") as tar:
            tar.add(source / "astronaut.jpg", "x/astronaut.jpg")
            link = tarfile.TarInfo("x/link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link)
        out, plain = tmp_path / "out", tmp_path / "plain"
        outcome = collect(tmp_path / "a.zip", tmp_path / "b.tar.gz", out=out)
        collect(source, out=plain)
        assert set(tree(out / "photos").values()) == set(tree(plain / "photos").values())
        assert [name.rpartition("!")[2] for name, _ in outcome.failed] == ["../evil.png", "x/link.jpg"]
        assert records(out)[f"{tmp_path}/b.tar.gz!x/astronaut.jpg"]["result"] == "duplicate"
        assert records(out)[f"{tmp_path}/a.zip!coffee.png"]["photo"].endswith("_coffee.png")
        first = (out / "measured.jsonl").read_bytes()
        again = collect(tmp_path / "a.zip", tmp_path / "b.tar.gz", out=out)
        assert (again.counts, again.failed) == (outcome.counts, outcome.failed)
        assert (out / "measured.jsonl").read_bytes() == first

    def test_feature_damaged_archive(self, source: Path, tmp_path: Path) -> None:
        path = tmp_path / "b.tar"
        with tarfile.open(path, "w") as tar:
            for name in ("astronaut.jpg", "coffee.png"):
                tar.add(source / name, name)
        path.write_bytes(path.read_bytes()[:-100_000])
        out = tmp_path / "out"
        for _ in range(2):
            outcome = collect(path, out=out)
            assert outcome.counts["kept"] == 1
            assert outcome.failed[0][0] == str(path)
            assert "cut short" in outcome.failed[0][1]

    def test_feature_urls(self, server: Any, source: Path, tmp_path: Path) -> None:
        good = server.put("/a/..%2F..%2FFjord%20%26%20Sea.php", (source / "coffee.png").read_bytes(), "cut")
        page = server.put("/page.jpg", b"<html>not here</html>")
        gone = server.put("/gone.jpg", b"", "404")
        evil = server.put("/evil.jpg", b"", "moved file:///etc/passwd")
        listed = tmp_path / "list.csv"
        listed.write_text(f'url,source,licence\n{good},"Ann & Bob",CC0\n{page},,\n{gone},,\n{evil},,\n')
        out = tmp_path / "out"
        outcome = collect(listed, source / "sub", out=out, licence="mine")
        assert [name for name, _ in outcome.failed] == [gone, evil]
        rows = records(out)
        assert rows[good]["photo"].endswith("_Fjord-Sea.png")
        assert (rows[good]["source"], rows[good]["licence"]) == ("Ann & Bob", "CC0")
        assert rows[page]["result"] == "unreadable"
        assert rows[gone]["result"] == "failed"
        assert "404" in rows[gone]["detail"]
        asked = len(server.log)
        server.put("/gone.jpg", (source / "astronaut.jpg").read_bytes())
        outcome = collect(listed, source / "sub", out=out)
        assert {path for path, _ in server.log[asked:]} == {"/gone.jpg", "/evil.jpg"}  # those that failed, again
        assert outcome.counts["kept"] == 4

    def test_feature_deleted_downloads_come_again_only_if_needed(
        self, server: Any, source: Path, tmp_path: Path
    ) -> None:
        urls = [server.put(f"/{name}", (source / name).read_bytes()) for name in ("coffee.png", "small.png")]
        listed, out = tmp_path / "list.txt", tmp_path / "out"
        listed.write_text("\n".join(urls))
        collect(listed, out=out)
        for path in (out / "downloads").iterdir():
            path.unlink()
        collect(listed, out=out)
        assert len(server.log) == 2
        (photo,) = (out / "photos").iterdir()
        photo.unlink()
        server.put("/coffee.png", (source / "astronaut.jpg").read_bytes())
        outcome = collect(listed, out=out)
        assert len(server.log) == 3
        assert "has changed" in outcome.failed[0][1]
        assert collect(listed, out=out).counts["kept"] == 1

    def test_feature_rewritten_and_stripped(
        self, tmp_path: Path, photos: dict[str, np.ndarray], capfd: pytest.CaptureFixture[str]
    ) -> None:
        source, out = tmp_path / "in", tmp_path / "out"
        source.mkdir()
        for name, orientation in (("turned", 8), ("upright", 1)):
            exif = PillowImage.Exif()
            exif[0x0112], exif[0x010E] = orientation, "a secret"
            picture = PillowImage.fromarray(photos["coffee" if name == "turned" else "astronaut"][..., ::-1])
            picture.save(source / f"{name}.jpg", exif=exif, quality=95)
        outcome = collect(source, out=out)
        assert (outcome.rewritten, outcome.with_exif) == (1, 1)
        rows = {Path(name).stem: row for name, row in records(out).items()}
        turned = cv2.imread(str(out / "photos" / rows["turned"]["photo"]))
        assert rows["turned"]["photo"].endswith("_turned.png")
        np.testing.assert_array_equal(turned, cv2.imread(str(source / "turned.jpg")))  # OpenCV turns it, too
        assert b"secret" in (out / "photos" / rows["upright"]["photo"]).read_bytes()
        assert collect(source, out=out, strip_metadata=True).with_exif == 0
        assert not any(b"secret" in data for data in tree(out / "photos").values())
        assert capfd.readouterr().err == ""

    def test_feature_killed_at_any_moment(self, source: Path, tmp_path: Path) -> None:
        """Once while measuring, once while writing what is kept."""
        for number in range(60):
            image = cv2.imread(str(source / "astronaut.jpg"))[number * 2 :, number * 3 :]
            cv2.imwrite(str(source / f"more{number}.png"), image)
        criteria = replace(LIMITS, hash_distance=None)
        code = (
            "import sys; from pathlib import Path\n"
            "from gramgan_plugin.prepare.collect.collector import CollectOptions, Criteria, collect_photos\n"
            "collect_photos([Path(sys.argv[1])], Path(sys.argv[2]), Criteria(min_side=200, hash_distance=None),"
            " options=CollectOptions(progress=False))"
        )
        out, journal = tmp_path / "out", tmp_path / "out" / "measured.jsonl"
        for begun in (
            lambda: journal.exists() and journal.read_bytes().count(b"\n") > 5,
            lambda: len(list((out / "photos").glob("*"))) > 1,
        ):
            process = subprocess.Popen([sys.executable, "-c", code, source, out])
            while not begun() and process.poll() is None:
                time.sleep(0.002)
            process.kill()
            assert process.wait() == -signal.SIGKILL
            for path in (out / "photos").glob("[!.]*"):
                assert cv2.imread(str(path)) is not None
        assert not (out / "collected.jsonl").exists()
        collect(source, out=out, criteria=criteria)
        collect(source, out=tmp_path / "other", criteria=criteria)
        for name in ("measured.jsonl", "collected.jsonl", "report.html"):
            assert (out / name).read_bytes() == (tmp_path / "other" / name).read_bytes()
        assert tree(out / "photos") == tree(tmp_path / "other" / "photos")

    def test_feature_unreadable_file(self, source: Path, tmp_path: Path) -> None:
        (source / "nowhere.jpg").symlink_to(tmp_path / "none")
        os.mkfifo(source / "pipe.jpg")
        outcome = collect(source, out=tmp_path / "out")
        assert "nowhere.jpg" in {Path(name).name for name, _ in outcome.failed}
        assert outcome.counts["kept"] == 4


class TestHostileSources:
    """One of them ends neither the others nor the collection."""

    def test_feature_link_to_itself(self, source: Path, tmp_path: Path) -> None:
        (source / "sub" / "circle.jpg").symlink_to("circle.jpg")
        (source / "folder").symlink_to("folder")
        outcome = collect(source, out=tmp_path / "out")
        assert outcome.failed == [(f"{source}/sub/circle.jpg", "a symbolic link that leads in a circle")]
        assert outcome.counts["kept"] == 4

    @pytest.mark.parametrize("records", [b"9" * 5000 + b" path=b.png\n", b"22 GNU.sparse.map=1,x\n"])
    def test_feature_tar(self, source: Path, tmp_path: Path, records: bytes) -> None:
        photo = (source / "coffee.png").read_bytes()
        parts = []
        for name, kind, data in (("a.png", b"0", photo), ("x", b"x", records), ("b.png", b"0", photo)):
            member = tarfile.TarInfo(name)
            member.size, member.type = len(data), kind
            parts += [member.tobuf(), data, bytes(-len(data) % 512)]
        (tmp_path / "bad.tar").write_bytes(b"".join(parts) + bytes(1024))
        outcome = collect(tmp_path / "bad.tar", source, out=tmp_path / "out")
        ((name, reason),) = outcome.failed
        assert name == f"{tmp_path}/bad.tar"
        assert reason.startswith("damaged, cut short or not an archive")
        assert outcome.counts["kept"] == 4
        assert records_of_kept(tmp_path / "out") >= {f"{tmp_path}/bad.tar!a.png"}  # what stands before the damage

    def test_feature_server(self, source: Path, tmp_path: Path, server: Any, raw_server: Any) -> None:
        raw_server.send(b"HTTP/1.1 302 Found\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n")
        good = server.put("/coffee.png", (source / "coffee.png").read_bytes())
        listed = tmp_path / "list.txt"
        listed.write_text(f"{raw_server.url}\n{good}\n")
        outcome = collect(listed, out=tmp_path / "out")
        assert outcome.failed == [(raw_server.url, "redirected to an invalid URL")]
        assert outcome.counts["kept"] == 1

    def test_feature_ctrl_c_ends_a_stalled_download(self, tmp_path: Path, raw_server: Any) -> None:
        asked = threading.Event()

        def say(connection: socket.socket) -> None:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
            asked.set()
            while not raw_server.ended.wait(0.05):
                connection.sendall(b"x")

        raw_server.say = say
        (tmp_path / "list.txt").write_text(raw_server.url)
        arguments = ["prepare", "collect", tmp_path / "list.txt", "--out", tmp_path / "out", "--allow-private"]
        command = [sys.executable, "-m", "gramgan_plugin", *arguments, "--timeout", "5000"]
        process = subprocess.Popen(
            command,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell may ignore it
        )
        try:
            assert asked.wait(60)
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 130
            assert "Traceback" not in process.communicate()[1]
        finally:
            process.kill()


def records_of_kept(out: Path) -> set[str]:
    return {name for name, row in records(out).items() if row["result"] == "kept"}


class TestExceptions:
    def test_exception_sources(self, tmp_path: Path) -> None:
        (tmp_path / "x.doc").touch()
        for source, match in (
            (tmp_path / "none", "no such folder or file"),
            (tmp_path / "x.doc", "neither a folder nor a photo"),
            (Path("https://a.org/x.jpg"), "write URLs into a text file"),
        ):
            with pytest.raises(UserError, match=match):
                collect(source, out=tmp_path / "out")

    def test_exception_folder_of_others(self, source: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="contains other files"):
            collect(source, out=source)

    def test_exception_in_use(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        collect(source, out=out)
        with FileLock(out / ".lock"), pytest.raises(UserError, match="another run is collecting"):
            collect(source, out=out)

    def test_exception_stop(self, server: Any, source: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"cut\.jpg: cut short; .*--on-error"):
            collect(source, out=tmp_path / "out", on_error="stop")
        listed = tmp_path / "list.txt"
        listed.write_text(server.put("/gone", b"", "404"))
        with pytest.raises(UserError, match="/gone: the server answers 404"):
            collect(listed, out=tmp_path / "out2", on_error="stop")
        listed.write_text(f"nothing\n{server.put('/a', b'x')}")
        with pytest.raises(UserError, match="line 1"):
            collect(listed, out=tmp_path / "out3", on_error="stop")

    def test_exception_full_disk(self, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"photos/.*: no space left on the disk"):
            collect(source, out=tmp_path / "out")
        assert not list((tmp_path / "out" / "photos").glob("[!.]*"))
        monkeypatch.undo()
        assert collect(source, out=tmp_path / "out").counts["kept"] == 4

    def test_exception_damaged_journal(self, source: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        collect(source, out=out)
        path = out / "measured.jsonl"
        text = path.read_text()
        path.write_text(text.replace('"hash64"', '"hash"', 1))
        with pytest.raises(UserError, match="damaged; delete it"):
            collect(source, out=out)
        path.write_text(text.replace('"version": 1', '"version": 0'))
        assert collect(source, out=out).counts["kept"] == 4
        assert path.read_text() == text
