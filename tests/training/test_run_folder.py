import json
import os
import subprocess
import sys

import pytest
import yaml

from gramgan_plugin.errors import UserError
from gramgan_plugin.training.run_folder import environment, open_run_folder, record_run


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

    def test_git_state_without_remotes(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert environment()["git"] is None
        run = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
        subprocess.run([*run, "init", "-q"], check=True)
        (tmp_path / "a").write_text("1")
        subprocess.run([*run, "add", "a"], check=True)
        subprocess.run([*run, "commit", "-qm", "m"], check=True)
        state = environment()["git"]
        assert len(state["commit"]) == 40
        assert state["dirty"] is False
        (tmp_path / "a").write_text("2")
        assert environment()["git"]["dirty"] is True
        assert set(state) == {"commit", "dirty"}
