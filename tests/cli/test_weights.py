import hashlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from gramgan_plugin.checkpoints import weights_cache
from gramgan_plugin.checkpoints.public_weights import WEIGHTS, PublicWeights
from gramgan_plugin.cli.main import main
from tests.messages import assert_message

TABLE = dict(WEIGHTS)


@pytest.fixture(autouse=True)
def folder(server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache, and a server with two weights, `good` and `gone`."""
    stream = io.BytesIO()
    torch.save({"params": {"conv_first.weight": torch.ones(3, 3)}}, stream)
    content = stream.getvalue()
    for name in WEIGHTS.copy():
        monkeypatch.delitem(WEIGHTS, name)
    for name, way in (("gone", "404"), ("good", "range")):
        url, digest = server.put(f"/{name}.pth", content, way), hashlib.sha256(content).hexdigest()
        weights = PublicWeights(name, f"{name}.pth", url, "MIT", "a test", digest, len(content))
        monkeypatch.setitem(WEIGHTS, name, weights)
    monkeypatch.setenv("GRAMGAN_WEIGHTS", str(tmp_path / "cache"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "cache"


class TestList:
    def test_table(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["weights", "fetch", "good"]) == 0
        assert capsys.readouterr().out == f"good: {folder / 'good.pth'} (MIT)\n"
        assert main(["weights", "list"]) == 0
        title, gone, good, last = capsys.readouterr().out.splitlines()
        assert title.split() == ["name", "size", "licence", "here", "what", "it", "is"]
        assert gone.split() == ["gone", "0.0", "MB", "MIT", "no", "a", "test"]
        assert good.split() == ["good", "0.0", "MB", "MIT", "yes", "a", "test"]
        assert last == f"folder: {folder} (GRAMGAN_WEIGHTS sets another one)"

    def test_json(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (folder).mkdir()
        (folder / "good.pth").touch()
        assert main(["weights", "list", "--json"]) == 0
        data = json.loads(capsys.readouterr().out)
        gone, good = data["weights"]
        assert data["folder"] == str(folder)
        assert good == {
            **{"name": "good", "file": "good.pth", "url": WEIGHTS["good"].url, "licence": "MIT", "about": "a test"},
            **{"sha256": WEIGHTS["good"].sha256, "whole_sha256": True, "size": WEIGHTS["good"].size},
            "path": str(folder / "good.pth"),
        }
        assert gone["path"] is None

    def test_all_of_them(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        for name, weights in TABLE.items():
            monkeypatch.setitem(WEIGHTS, name, weights)
        assert main(["weights", "list"]) == 0
        lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
        assert lines.keys() >= TABLE.keys()
        assert lines["vgg19"].split()[1:3] == ["574.7", "MB"]
        assert lines["ESRGAN_x4"].split()[1:4] == ["<100", "MB", "Apache-2.0"]
        assert max(len(line) for name, line in lines.items() if name != "folder:") <= 100


class TestFetch:
    def test_one_that_fails_does_not_end_the_others(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["weights", "fetch", "--all"]) == 3
        captured = capsys.readouterr()
        assert captured.out == f"good: {folder / 'good.pth'} (MIT)\n"
        assert re.search(f"^failed gone: {WEIGHTS['gone'].url} .* 404 ", captured.err)

    def test_mistakes(self, server: Any, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["weights", "fetch", "good", "god"]) == 2
        assert_message(capsys.readouterr().err, "basicsr weights: god", "did you mean 'good'")
        assert main(["weights", "fetch"]) == 2
        assert "name what to fetch, or pass --all" in capsys.readouterr().err
        assert not server.log


class TestVerify:
    def test_lines_and_exit_codes(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["weights", "verify"]) == 0
        assert capsys.readouterr().out == f"nothing to verify: {folder} has no public weights\n"
        assert main(["weights", "fetch", "good"]) == 0
        capsys.readouterr()
        assert main(["weights", "verify"]) == 0
        assert capsys.readouterr().out == f"good: {folder / 'good.pth'}: fine\n"
        (folder / "gone.pth").write_bytes(b"half of it")
        assert main(["weights", "verify"]) == 3
        gone, good = capsys.readouterr().out.splitlines()
        assert_message(gone, f"gone: {folder / 'gone.pth'}", "a text file", "`basicsr weights fetch gone`")
        assert good.endswith(": fine")
        (folder / "gone.pth").unlink()
        assert main(["weights", "verify", "good", "gone"]) == 3
        assert_message(capsys.readouterr().out, "gone", "not on this machine", "`basicsr weights fetch gone`")

    def test_unknown(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["weights", "verify", "god"]) == 2
        assert "did you mean 'good'" in capsys.readouterr().err


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(weights: PublicWeights) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(weights_cache, "network_for", interrupt)
    assert main(["weights", "fetch", "good"]) == 130
