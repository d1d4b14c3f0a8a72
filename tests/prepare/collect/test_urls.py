import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.collect.urls import Listed, fetch, file_of, read_list
from gramgan_plugin.utils.download.limits import Network


def written(folder: Path, text: str, name: str = "list.txt") -> Path:
    path = folder / name
    path.write_bytes(text.encode())
    return path


class TestReadList:
    def test_smoke_lines(self, tmp_path: Path) -> None:
        path = written(tmp_path, "# mine\nhttp://a.org/1.jpg\r\n\n  https://b.org/2  \nhttp://a.org/1.jpg\n")
        assert read_list(path) == ([Listed("http://a.org/1.jpg"), Listed("https://b.org/2")], [])

    @pytest.mark.parametrize("separator", [",", "\t"])
    def test_feature_columns(self, tmp_path: Path, separator: str) -> None:
        rows = [
            ["Licence", "note", "URL", "source"],
            ["CC0", "x", "http://a.org/1.jpg", '"Ann, of B"'],
            ["", "", "http://a.org/2.jpg"],
        ]
        path = written(tmp_path, "\ufeff# c\n" + "\n".join(separator.join(row) for row in rows))
        listed, problems = read_list(path)
        assert listed == [Listed("http://a.org/1.jpg", "Ann, of B", "CC0"), Listed("http://a.org/2.jpg")]
        assert not problems

    def test_feature_american_spelling(self, tmp_path: Path) -> None:
        assert read_list(written(tmp_path, "url,license\nhttp://a.org/,MIT"))[0][0].licence == "MIT"

    def test_feature_wrong_lines_are_reported_by_number(self, tmp_path: Path) -> None:
        listed, problems = read_list(written(tmp_path, "http://a.org/1\n\nfile:///etc/passwd\nnothing\n"))
        assert len(listed) == 1
        assert [where.rpartition(", ")[2] for where, _ in problems] == ["line 3", "line 4"]
        assert all("not a URL of http or https" in reason for _, reason in problems)

    @pytest.mark.parametrize("header", ["", "url,source\n"])
    def test_feature_endless_line(self, tmp_path: Path, header: str) -> None:
        """Above what Python's csv reads."""
        path = written(tmp_path, f"{header}http://a.org/1\n{'x' * 200_000},http://a.org/\nhttp://a.org/2\n")
        listed, problems = read_list(path)
        assert [entry.url for entry in listed] == ["http://a.org/1", "http://a.org/2"]
        ((_, reason),) = problems
        assert "longer than 8192 characters" in reason
        assert len(reason) < 200

    @pytest.mark.parametrize(("text", "match"), [("", "no URL in it"), ("x", "line 1: x: not a URL")])
    def test_exception(self, tmp_path: Path, text: str, match: str) -> None:
        with pytest.raises(UserError, match=match):
            read_list(written(tmp_path, text))

    def test_exception_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "list.txt"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UserError, match="not a text file in UTF-8"):
            read_list(path)


CONTENT = np.random.default_rng(0).bytes(300_000)


def network(**options: Any) -> Network:
    return Network(**{"allow_private": True, "backoff": 0.01, "timeout": 5.0, **options})


class TestFetch:
    def test_feature_failures_by_url_and_no_second_time(self, server: Any, tmp_path: Path) -> None:
        good = [server.put(f"/{name}", CONTENT + name.encode()) for name in "abc"]
        bad = server.put("/gone", b"", "404")
        failed = fetch([good[0], bad, *good[1:]], tmp_path / "d", network(), 3, progress=False)
        assert failed == {bad: "the server answers 404 Not Found"}
        assert [file_of(tmp_path / "d", url).read_bytes()[-1:] for url in good] == [b"a", b"b", b"c"]
        server.log.clear()
        assert fetch(good, tmp_path / "d", network(), 3, progress=False) == {}
        assert not server.log

    def test_feature_limit_of_all(self, server: Any, tmp_path: Path) -> None:
        urls = [server.put(f"/{name}", CONTENT) for name in "abc"]
        limits = network(max_total=700_000)
        failed = fetch(urls, tmp_path, limits, 1, progress=False)
        assert list(failed) == urls[2:]
        assert "--max-total" in failed[urls[2]]
        # Earlier runs count, too; with more allowed, the third is resumed.
        assert list(fetch(urls, tmp_path, limits, 1, progress=False)) == urls[2:]
        assert fetch(urls, tmp_path, network(), 1, progress=False) == {}
        assert server.asked("/c")[-1].startswith("bytes=")

    def test_feature_stop(self, server: Any, tmp_path: Path) -> None:
        urls = [server.put("/gone", b"", "404"), server.put("/endless", b"", "endless")]
        done = threading.Event()
        threading.Thread(target=lambda: (fetch(urls, tmp_path, network(), 2, False, stop=True), done.set())).start()
        assert done.wait(10)

    def test_feature_names_come_from_no_url(self, tmp_path: Path) -> None:
        for url in ("http://a.org/../../etc/passwd", "http://a.org/" + "x" * 5000, "http://a.org/\udcff"):
            path = file_of(tmp_path, url)
            assert path.parent == tmp_path
            assert path.name.isalnum()
            assert len(path.name) == 40
