import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gramgan_plugin.cli.main import COMMANDS, main

SHIPPED = {path.name for path in (Path(__file__).parents[2] / "options").glob("*.yml")}


@pytest.fixture
def script(workdir, capsys):
    """Writes a shell's script into a file and returns its path; the working directory has option files, too."""
    (workdir / "work").mkdir()
    for name in ("work/mine.yml", "work/photo.png"):
        (workdir / name).touch()

    def write(shell: str) -> Path:
        assert main(["completion", shell]) == 0
        path = workdir / f"completion.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return write


def _shell(name: str, *arguments: str, cwd: Path | None = None) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed")
    done = subprocess.run([name, *arguments], capture_output=True, text=True, check=False, timeout=60, cwd=cwd)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


class TestBash:
    @pytest.fixture
    def complete(self, script, workdir):
        """What bash offers for the last of these words."""
        path = script("bash")
        code = (
            'source "$0"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_basicsr; printf "%s\\n" "${COMPREPLY[@]}"'
        )

        def offered(*words: str) -> set[str]:
            out = _shell("bash", "-c", code, str(path), "basicsr", *words, cwd=workdir / "work")
            return set(out.split())

        return offered

    def test_subcommands(self, complete):
        assert complete("") == set(COMMANDS)
        assert complete("compl") == {"completion"}
        packing = {"div2k", "flickr2k", "df2k", "folder", "sample"}
        assert complete("prepare", "") == packing | {"benchmarks", "collect", "verify"}

    def test_options(self, complete):
        assert {"-opt", "--opt", "--force_yml", "--auto_resume", "--launcher", "--verbose"} <= complete("train", "-")
        assert "--auto_resume" not in complete("test", "-")
        assert complete("train", "--launcher", "") == {"none", "pytorch", "slurm"}
        assert complete("completion", "") == {"bash", "zsh", "fish"}

    def test_option_files(self, complete):
        assert complete("train", "-opt", "") == SHIPPED | {"mine.yml"}
        assert complete("train", "-opt", "mine.yml", "--opt", "test_") == {n for n in SHIPPED if n.startswith("test_")}
        assert complete("doctor", "-opt", "../work/m") == {"../work/mine.yml"}

    def test_public_weights(self, complete):
        assert complete("weights", "") == {"list", "fetch", "verify"}
        assert complete("weights", "fetch", "vgg16", "v") == {"vgg16", "vgg19"}

    def test_folders(self, complete):
        assert complete("prepare", "folder", "../w") == {"../work"}


class TestZsh:
    def test_syntax(self, script):
        _shell("zsh", "-n", str(script("zsh")))

    def test_it_is_taken(self, script):
        code = 'autoload -U compinit; compinit -u -D; eval "$(cat "$1")"; echo ${_comps[basicsr]}'
        assert _shell("zsh", "-fc", code, "zsh", str(script("zsh"))).strip() == "_shtab_basicsr"

    def test_a_colon_in_a_metavar_is_no_specification(self, script):
        assert "KEY-SUBKEY=VALUE" in script("zsh").read_text()


class TestFish:
    def test_syntax(self, script):
        _shell("fish", "--no-execute", str(script("fish")))

    def test_what_it_offers(self, script, workdir):
        path = script("fish")

        def offered(line: str) -> set[str]:
            code = f"source {path}; complete -C '{line}'"
            out = _shell("fish", "--no-config", "-c", code, cwd=workdir / "work")
            return {entry.partition("\t")[0] for entry in out.splitlines()}

        assert offered("basicsr ") == set(COMMANDS)
        assert offered("basicsr train -opt ") == SHIPPED | {"mine.yml"}
        assert "-opt" in offered("basicsr train -o")


def test_no_such_shell(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["completion", "csh"])
    assert "invalid choice: 'csh'" in capsys.readouterr().err


def test_without_shtab(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert main(["completion", "bash"]) == 2
    assert "needs the package shtab: pip install" in capsys.readouterr().err
