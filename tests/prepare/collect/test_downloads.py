import threading
from pathlib import Path
from typing import Any

import numpy as np

from gramgan_plugin.prepare.collect.downloads import fetch, file_of
from gramgan_plugin.utils.download.network import Network

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
