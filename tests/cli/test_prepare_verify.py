import json
from pathlib import Path

import pytest

from gramgan_plugin.cli.main import main
from tests.messages import assert_message
from tests.prepare.verify.lmdbs import cuts, put, write_set


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    return write_set(tmp_path / "set", dict(list(cuts(96, 4).items())[::4]), 4)


class TestPrepareVerify:
    def test_smoke(self, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "outcome.json"
        assert main(["prepare", "verify", str(prepared), "--json", str(out)]) == 0
        captured = capsys.readouterr()
        lines = captured.out.splitlines()
        assert len(lines) == 13
        assert all(line.startswith("ok ") for line in lines[:-1])
        assert lines[-1] == f"{prepared}: fine"
        assert "images" in captured.err
        outcome = json.loads(out.read_text())
        assert outcome["fine"] is True
        assert [check["name"] for check in outcome["paths"][0]["checks"]][-1] == "downsampling"
        assert (prepared / "GT.lmdb" / "manifest.json").is_file()

    def test_feature_wrong(self, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        put(prepared / "GT.lmdb", "\x1b[2Jevil", b"x")
        out = tmp_path / "outcome.json"
        assert main(["prepare", "verify", str(prepared), str(prepared / "LQ_x4.lmdb"), "--json", str(out)]) == 3
        printed = capsys.readouterr().out
        assert "\x1b" not in printed
        assert "wrong   GT.lmdb: keys: 1 keys in only one of the two\n    \\x1b[2Jevil: in data.mdb, not in" in printed
        assert printed.splitlines()[-1].endswith("LQ_x4.lmdb: fine")
        assert [path["fine"] for path in json.loads(out.read_text())["paths"]] == [False, True]

    def test_feature_pair(self, prepared: Path, capsys: pytest.CaptureFixture[str]) -> None:
        gt, lq = str(prepared / "GT.lmdb"), str(prepared / "LQ_x4.lmdb")
        arguments = ["prepare", "verify", gt, "--lq", lq, "--pairs", "2", "--workers", "1", "--no-store"]
        assert main([*arguments, "--scale", "4"]) == 0
        assert "within 1 level in 2 pairs" in capsys.readouterr().out
        assert not (prepared / "GT.lmdb" / "manifest.json").exists()
        assert main([*arguments, "--scale", "2"]) == 3

    def test_exception(self, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(["prepare", "verify", str(tmp_path / "none")]) == 2
        assert_message(capsys.readouterr().err, f"basicsr prepare: {tmp_path / 'none'}", "no such folder")
        assert main(["prepare", "verify", str(prepared), str(prepared), "--lq", str(prepared)]) == 2
        assert "--lq: works with one GT LMDB" in capsys.readouterr().err
