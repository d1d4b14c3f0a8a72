import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.io import (
    JsonLines,
    as_line,
    describe_file,
    file_sha256,
    lock_holder,
    read_lines,
    replace_file,
    replacing,
    save_json,
)


def _records(path):
    return [record for _, record in read_lines(path)]


class TestReplacing:
    @pytest.mark.parametrize("shared", [False, True])
    def test_whole_or_not_at_all(self, tmp_path, shared):
        path = tmp_path / "made" / "a"
        with replacing(path, synced=True, shared=shared) as stream:
            stream.write(b"old")
            assert not path.exists()
        with pytest.raises(ZeroDivisionError), replacing(path, synced=False, shared=shared) as stream:
            stream.write(b"new" * (1 // 0))
        assert path.read_bytes() == b"old"
        assert [left.name for left in path.parent.iterdir()] == ["a"]

    def test_processes_that_write_at_once_have_names_of_their_own(self, tmp_path):
        with replacing(tmp_path / "a", synced=False, shared=True):
            assert [path.name for path in tmp_path.iterdir()] == [f".a.tmp-{os.getpid()}"]

    def test_exception(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="file: exists already"), replacing(tmp_path / "file/a", synced=False):
            pass


class TestRecords:
    def test_sha256(self, tmp_path):
        (tmp_path / "x").write_bytes(b"abc")  # the example of the standard, FIPS 180
        assert file_sha256(tmp_path / "x").startswith("ba7816bf8f01cfea")
        assert describe_file(tmp_path / "x") == {"size": 3, "sha256": file_sha256(tmp_path / "x")}

    def test_save_json(self, tmp_path):
        save_json({"b": [1], "a": "é"}, tmp_path / "x")
        assert (tmp_path / "x").read_bytes() == b'{\n  "a": "\\u00e9",\n  "b": [\n    1\n  ]\n}\n'

    @pytest.mark.parametrize(
        ("content", "holder"),
        [
            (b'{"pid": 12, "host": "here\\u001b[2J"}', r"process 12 on 'here\x1b[2J'"),
            (b'{"pid": "x", "host": "here"}', "another process"),
            (b"[1]", "another process"),
            (b"\xff", "another process"),
            (b"[" * 100_000, "another process"),
        ],
        ids=["whole", "number", "list", "bytes", "deep"],
    )
    def test_lock_holder(self, tmp_path, content, holder):
        assert lock_holder(tmp_path / "none") == "another process"
        (tmp_path / "x").write_bytes(content)
        assert lock_holder(tmp_path / "x") == holder


class TestAsLine:
    def test_what_is_no_number_is_null(self):
        record = {"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": float("-inf"), "e": "NaN"}, "f": None}
        read = json.loads(as_line(record), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert read == {"a": None, "b": [None, 1.5], "c": {"d": None, "e": "NaN"}, "f": None}


class TestJsonLines:
    def test_appends(self, tmp_path):
        path = tmp_path / "a.jsonl"
        for number in (1, 2):
            lines = JsonLines(path)
            lines.append({"iter": number})
            assert _records(path)[-1] == {"iter": number}, "on its way to the disk before the file is closed"
            lines.close()
        assert _records(path) == [{"iter": 1}, {"iter": 2}]

    @pytest.mark.parametrize("torn", ['{"iter": 2, "l_g', "{", '{"iter": 2}', '{"x": "' + "y" * 200_000])
    def test_a_line_that_a_kill_has_torn_is_cut_off(self, tmp_path, torn):
        path = tmp_path / "a.jsonl"
        for before in ('{"iter": 1}\n', ""):
            path.write_text(before + torn)
            lines = JsonLines(path)
            lines.append({"iter": 3})
            lines.close()
            assert path.read_text() == before + '{"iter": 3}\n'

    def test_after_kill_9(self, tmp_path):
        path = tmp_path / "a.jsonl"
        code = (
            "import sys, pathlib\n"
            "from gramgan_plugin.utils.io import JsonLines\n"
            "lines = JsonLines(pathlib.Path(sys.argv[1]))\n"
            "lines.append({'iter': 1})\n"
            'lines.stream.write(\'{"iter": 2, "l_g_p\')\n'
            "lines.stream.flush()\n"
            "print('ready', flush=True)\n"
            "import time; time.sleep(60)\n"
        )
        with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "ready\n"
            os.kill(process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert _records(path) == [{"iter": 1}]
        lines = JsonLines(path)
        lines.append({"iter": 2})
        lines.close()
        assert _records(path) == [{"iter": 1}, {"iter": 2}]

    def test_exception(self, tmp_path):
        with pytest.raises(UserError, match="no such file or folder"):
            JsonLines(tmp_path / "no/a.jsonl")

    @pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")  # noqa: PTH110
    def test_a_full_disk(self, tmp_path):
        lines = JsonLines(tmp_path / "a.jsonl")
        lines.stream.close()
        lines.stream = open("/dev/full", "w")  # noqa: PTH123, SIM115
        with pytest.raises(UserError, match=r"a\.jsonl: no space left"):
            lines.append({"iter": 1})


class TestReadLines:
    def test_numbers_of_lines(self, tmp_path):
        (tmp_path / "a").write_text('{"a": 1}\n{"a": 2}\n{"a": 3')
        assert list(read_lines(tmp_path / "a")) == [(1, {"a": 1}), (2, {"a": 2})]
        (tmp_path / "a").write_text('{"a": 1}\n{"a": 2}')
        assert _records(tmp_path / "a") == [{"a": 1}, {"a": 2}], "whole, but for the end of its line"

    @pytest.mark.parametrize("bad", [b"nonsense", b'{"a": ', b"", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000])
    def test_exception(self, tmp_path, bad):
        (tmp_path / "a").write_bytes(b'{"a": 1}\n' + bad + b'\n{"a": 3}\n')
        with pytest.raises(UserError, match=r"a, line 2: not a line of JSON"):
            _records(tmp_path / "a")
        (tmp_path / "a").write_text("[1]\n")
        with pytest.raises(UserError, match=r"a, line 1: not a line of JSON"):
            _records(tmp_path / "a")
        with pytest.raises(UserError, match="cannot be read: No such file"):
            _records(tmp_path / "b")


@pytest.mark.parametrize("name", [".", "/", "..", "pipe"])
def test_what_is_no_ordinary_file_is_not_replaced(workdir, name):
    os.mkfifo("pipe")
    with pytest.raises(UserError, match="a folder or a device"):
        replace_file(Path(name), b"x")
    assert Path("pipe").is_fifo()
