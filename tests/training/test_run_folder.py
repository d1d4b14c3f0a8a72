import json
import os
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version

import pytest
import torch
import yaml

from gramgan_plugin.errors import UserError
from gramgan_plugin.training.run_folder import environment, open_run_folder, record_data, record_run
from gramgan_plugin.utils.yaml_io import parse_yaml


class TestOpenRunFolder:
    def test_a_second_run_is_refused_with_the_holder(self, tmp_path):
        folder = tmp_path / "run"
        with open_run_folder(folder, keep=False):
            # A lock is of a process: another one has to try.
            code = (
                "import sys, pathlib\n"
                "from gramgan_plugin.errors import UserError\n"
                "from gramgan_plugin.training.run_folder import open_run_folder\n"
                "try:\n"
                "    with open_run_folder(pathlib.Path(sys.argv[1]), keep=bool(int(sys.argv[2]))): pass\n"
                "except UserError as error: print(error)\n"
            )
            for keep in ("0", "1"):
                done = subprocess.run(
                    [sys.executable, "-c", code, str(folder), keep], capture_output=True, text=True, check=True
                )
                assert f"in use by process {os.getpid()} on " in done.stdout
        assert list(tmp_path.iterdir()) == [folder], "a locked folder is not archived"

    def test_an_old_run_is_archived(self, tmp_path):
        folder = tmp_path / "run"
        for content in ("first", "second", "third"):
            with open_run_folder(folder, keep=False):
                assert not (folder / "mark").exists()
                (folder / "mark").write_text(content)
        marks = sorted(
            (path.name.startswith("run_archived_"), (path / "mark").read_text()) for path in tmp_path.iterdir()
        )
        assert marks == [(False, "third"), (True, "first"), (True, "second")]

    def test_keep(self, tmp_path):
        for _ in range(2):
            with open_run_folder(tmp_path / "run", keep=True):
                (tmp_path / "run/mark").touch()
        assert (tmp_path / "run/mark").exists()

    def test_the_lock_ends_with_an_error(self, tmp_path):
        with pytest.raises(KeyError), open_run_folder(tmp_path / "run", keep=False):
            raise KeyError
        with open_run_folder(tmp_path / "run", keep=True):
            pass

    def test_a_damaged_holder_file(self, tmp_path):
        with open_run_folder(tmp_path / "run", keep=False):
            (tmp_path / "run/.lock.json").write_text("[1")
            with (
                pytest.raises(UserError, match="in use by another process"),
                open_run_folder(tmp_path / "run", keep=True),
            ):
                pass


class TestRecordRun:
    def test_options_and_versions(self, tmp_path):
        optimizer = {"type": "Adam", "lr": 1e-4, "betas": (0.9, 0.9)}
        opt = {"name": "x", "train": {"optim_g": optimizer, "gram_patch_opt": {"type": "GramPatchLoss", "alpha": 2}}}
        record_run(tmp_path, opt)
        recorded = yaml.safe_load((tmp_path / "options.yml").read_text())
        assert recorded["name"] == "x"
        written = recorded["train"]["optim_g"]
        assert (written["lr"], written["betas"], written["amsgrad"]) == (1e-4, [0.9, 0.9], False)
        assert recorded["train"]["gram_patch_opt"].items() >= {"alpha": 2, "beta": 1.0, "patch_size": 4}.items()
        assert "amsgrad" not in optimizer, "the options themselves stay as the user wrote them"
        recorded = json.loads((tmp_path / "environment.json").read_text())
        assert recorded["packages"]["basicsr"] == "1.4.2"

    def test_options_read_back_as_they_were(self, tmp_path):
        """Under both loaders, YAML 1.2 (ours) and 1.1 (BasicSR's)."""
        opt = {"name": "1e4", "path": {"param_key_g": "1e-3"}, "scale": 4, "a": "2020-01-01", "lr": 1e-7}
        record_run(tmp_path, opt)
        text = (tmp_path / "options.yml").read_text()
        assert parse_yaml(text, "options.yml") == yaml.safe_load(text) == opt

    def test_each_start_is_kept(self, tmp_path):
        for iteration, world in ((0, 1), (400, 2), (900, 3)):
            record_run(tmp_path, {"manual_seed": 7, "world_size": world, "is_train": True}, iteration)
        starts = [json.loads(line) for line in (tmp_path / "starts.jsonl").read_text().splitlines()]
        assert [(start["iteration"], start["processes"], start["seed"]) for start in starts] == [
            (0, 1, 7),
            (400, 2, 7),
            (900, 3, 7),
        ]
        assert all(abs(datetime.now(UTC) - datetime.fromisoformat(start["time"])).seconds < 60 for start in starts)
        latest = json.loads((tmp_path / "environment.json").read_text())
        assert latest == {
            key: value for key, value in starts[-1].items() if key not in ("time", "iteration", "metrics_lines")
        }

    def test_a_test_has_no_starts(self, tmp_path):
        record_run(tmp_path, {"is_train": False})
        assert sorted(path.name for path in tmp_path.iterdir()) == ["environment.json", "options.yml"]

    def test_a_file_that_cannot_be_written(self, tmp_path):
        (tmp_path / "options.yml").mkdir()
        with pytest.raises(UserError, match=r"options\.yml: a folder where a file should be"):
            record_run(tmp_path, {})


class TestRecordData:
    def test_feature(self, tmp_path):
        facts = {"images": 3, "batch": 8, "world_size": 1, "ratio": 1, "fingerprint": {"sha256": "ab"}}
        record_data(tmp_path, facts)
        record_data(tmp_path, facts | {"images": 4})
        assert json.loads((tmp_path / "data.json").read_text()) == facts | {"images": 4}
        assert [path.name for path in tmp_path.iterdir()] == ["data.json"]


class TestEnvironment:
    def test_what_a_result_may_depend_on(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["/home/me/venv/bin/basicsr", "train", "-opt", "/home/me/a.yml"])
        monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        monkeypatch.setenv("A_SECRET", "word")
        facts = environment({"manual_seed": 5, "world_size": 2, "num_gpu": 0})
        assert facts["command"] == ["basicsr", "train", "-opt", "/home/me/a.yml"]
        assert (facts["seed"], facts["processes"], facts["devices"], facts["cuda"]) == (5, 2, ["cpu"], None)
        assert facts["threads"] == torch.get_num_threads()
        assert facts["variables"]["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
        assert "word" not in json.dumps(facts)
        assert facts["packages"]["torch"] == version("torch")

    def test_gpus(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {number}")
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91000)
        assert environment({"num_gpu": 2})["devices"] == ["GPU 0", "GPU 1"]
        assert environment({"num_gpu": 1, "dist": True})["devices"] == ["GPU 0", "GPU 1", "GPU 2"]
        assert environment({"num_gpu": 2})["cuda"] == torch.version.cuda
        assert environment({"num_gpu": 0})["devices"] == ["cpu"]

    @pytest.mark.parametrize(
        ("argv", "command"),
        [
            (["/a/gramgan_plugin/__main__.py", "train"], ["python", "-m", "gramgan_plugin", "train"]),
            ([""], [""]),
            ([], [""]),
        ],
    )
    def test_how_it_was_started(self, monkeypatch, argv, command):
        monkeypatch.setattr(sys, "argv", argv)
        assert environment({})["command"] == command

    def test_git_state_without_remotes(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert environment({})["git"] is None
        run = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run([*run, "init", "-q"], check=True)
        (tmp_path / "a").write_text("1")
        subprocess.run([*run, "add", "a"], check=True)
        subprocess.run([*run, "commit", "-qm", "m"], check=True)
        state = environment({})["git"]
        assert len(state["commit"]) == 40
        assert state["dirty"] is False
        (tmp_path / "a").write_text("2")
        assert environment({})["git"]["dirty"] is True
        assert set(state) == {"commit", "dirty"}
