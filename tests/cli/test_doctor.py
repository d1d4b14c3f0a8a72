import json
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from gramgan_plugin.cli.main import main
from gramgan_plugin.diagnostics import hardware, software, storage, weights
from tests.messages import assert_message


@pytest.fixture
def healthy(monkeypatch):
    """What may differ from machine to machine, and is not tested here."""
    monkeypatch.setattr(storage, "free_bytes", lambda folder: 10**12)
    monkeypatch.setattr(software, "search_path", list)
    monkeypatch.setattr(hardware, "devices", list)


def _findings(capsys: pytest.CaptureFixture[str], section: str) -> list[dict[str, str]]:
    return json.loads(capsys.readouterr().out)["sections"][section]


def test_as_a_command(workdir):
    done = subprocess.run(
        [sys.executable, "-m", "gramgan_plugin", "doctor", "-opt", "train_gramgan_sample"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert f"  ok       torch: {metadata.version('torch')}" in lines
    # The sample has not been prepared here.
    assert any(line.startswith("  problem  option file: datasets.train.dataroot_gt: ") for line in lines)
    assert "problems, " in lines[-1]


class TestReport:
    def test_all_is_well(self, healthy, workdir, capsys):
        assert main(["doctor"]) == 0
        out = capsys.readouterr().out
        assert out.endswith("\nno problems, no warnings\n")
        assert f"working directory: {workdir}" in out

    def test_reason_and_cure(self, healthy, workdir, capsys, monkeypatch):
        monkeypatch.setattr(software, "installed_version", lambda name: "2.4.0" if name == "torch" else "1.4.2")
        assert main(["doctor"]) == 2
        lines = capsys.readouterr().out.splitlines()
        place = next(number for number, line in enumerate(lines) if line.startswith("  problem  torch: 2.4.0"))
        assert "why: before 2.6, " in lines[place + 1]
        assert "cure: pip install 'torch>=2.6" in lines[place + 2] or "cure: pip install 'torch<3" in lines[place + 2]

    def test_a_package_that_does_not_import(self, healthy, workdir, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "faiss", None)  # makes its import fail
        assert main(["doctor", "--json"]) == 2
        (finding,) = [one for one in _findings(capsys, "software") if one["level"] == "problem"]
        assert (finding["topic"], "cannot be imported" in finding["fact"]) == ("faiss-cpu", True)

    def test_a_check_that_fails_itself(self, healthy, workdir, capsys, monkeypatch):
        monkeypatch.setattr(weights, "vgg19", lambda: 1 / 0)
        assert main(["doctor"]) == 0
        assert "warning  weights: cannot be checked: ZeroDivisionError" in capsys.readouterr().out

    def test_json(self, healthy, workdir, capsys, monkeypatch):
        monkeypatch.setattr(storage, "free_bytes", lambda folder: 10**8)
        assert main(["doctor", "--json"]) == 2
        report = json.loads(capsys.readouterr().out)
        levels = [finding["level"] for members in report["sections"].values() for finding in members]
        assert report["problems"] == levels.count("problem") == 2
        assert report["warnings"] == levels.count("warning") == 0
        assert set(report["sections"]["disks"][0]) == {"topic", "level", "fact", "reason", "cure"}

    def test_another_folder(self, healthy, workdir, capsys):
        (workdir / "there").mkdir()
        assert main(["doctor", "--dir", "there"]) == 0
        assert f"working directory: {workdir / 'there'} on " in capsys.readouterr().out
        assert Path.cwd() == workdir
        assert main(["doctor", "--dir", "nowhere"]) == 2
        assert_message(capsys.readouterr().err, "basicsr doctor: --dir nowhere", "no such folder")


class TestOptionFiles:
    def test_all_is_well(self, healthy, tiny_options, write_options, capsys):
        assert main(["doctor", "-opt", write_options(tiny_options)]) == 0
        out = capsys.readouterr().out
        assert "ok       option file: options.yml: nothing to correct" in out
        assert "ok       datasets.train.dataroot_gt: " in out

    def test_each_mistake_is_a_problem(self, healthy, tiny_options, write_options, capsys):
        tiny_options["train"]["pixle_opt"] = {}
        tiny_options["network_g"]["num_fat"] = 3
        assert main(["doctor", "--json", "-opt", write_options(tiny_options)]) == 2
        problems = [one["fact"] for one in _findings(capsys, "options") if one["level"] == "problem"]
        assert any(re.search("train.pixle_opt: .*did you mean 'pixel_opt'", fact) for fact in problems)
        assert any("network_g.num_fat: unknown option" in fact for fact in problems)

    def test_no_such_file(self, healthy, workdir, capsys):
        assert main(["doctor", "--json", "-opt", "nothing.yml"]) == 2
        (finding,) = _findings(capsys, "options")
        assert "nothing.yml: no such option file" in finding["fact"]

    def test_an_lmdb_on_a_network(self, healthy, tiny_options, write_options, capsys, monkeypatch):
        monkeypatch.setattr(storage, "file_system", lambda path: "nfs4")
        assert main(["doctor", "--json", "-opt", write_options(tiny_options)]) == 0
        bad = [one["topic"] for one in _findings(capsys, "options") if one["level"] == "warning"]
        assert bad == ["datasets.train.dataroot_gt", "datasets.train.dataroot_lq"]

    def test_without_basicsr(self, healthy, tiny_options, write_options, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "basicsr", None)
        assert main(["doctor", "--json", "-opt", write_options(tiny_options)]) == 2
        (finding,) = _findings(capsys, "options")
        assert "not checked" in finding["fact"]
