import json
import os
import signal
import subprocess
import sys
import time

import pytest

from gramgan_plugin.errors import UserError
from gramgan_plugin.json_lines import JsonLines, as_line, read_lines


def _records(path):
    return [record for _, record in read_lines(path)]


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
            "from gramgan_plugin.json_lines import JsonLines\n"
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
        with pytest.raises(UserError, match=r"a, line 1: not a line of JSON with names"):
            _records(tmp_path / "a")
        with pytest.raises(UserError, match="cannot be read: No such file"):
            _records(tmp_path / "b")
