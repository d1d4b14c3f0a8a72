"""Every kind of bad input, and of trouble with the machine, ends in one line and exit code 2."""

import errno
import json
import os
import shutil
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch

from gramgan_plugin.cli.failures import explain
from gramgan_plugin.cli.main import main
from gramgan_plugin.errors import UserError
from tests.messages import assert_message

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full here")


@pytest.fixture
def fails(capfd):
    """Runs a command line that has to fail, and returns the one line of its error."""

    def run(*argv: str) -> str:
        capfd.readouterr()
        assert main(list(argv)) == 2
        err = capfd.readouterr().err
        assert "Traceback" not in err
        start = f"basicsr {argv[0]}: "
        lines = [line for line in err.splitlines() if line.startswith(start) and not line.startswith(f"{start}warning")]
        assert len(lines) == 1, err
        return lines[0].removeprefix(start)

    return run


@pytest.fixture
def own_data(tiny_options, sample_pair, workdir) -> dict[str, Any]:
    """The options over a copy of the data, which a test may damage."""
    shutil.copytree(sample_pair, workdir / "data")
    for block in tiny_options["datasets"].values():
        for root in ("dataroot_gt", "dataroot_lq"):
            block[root] = str(Path("data") / Path(block[root]).relative_to(sample_pair))
    return tiny_options


@pytest.fixture
def finished(tiny_options, write_options, workdir) -> Path:
    """A run's folder, with checkpoints of 2 and 4 iterations; the options now ask for more."""
    tiny_options["logger"]["use_tb_logger"] = False
    assert main(["train", "-opt", write_options(tiny_options)]) == 0
    tiny_options["train"]["total_iter"] = 6
    write_options(tiny_options)
    return workdir / "experiments/tiny"


class TestFolders:
    def test_no_images_to_prepare(self, workdir, fails):
        (workdir / "empty").mkdir()
        (workdir / "empty/notes.txt").touch()
        assert_message(fails("prepare", "folder", "empty", "--out", "out"), "empty", "no images")
        assert not (workdir / "out").exists()

    def test_no_images_to_train_on(self, tiny_options, write_options, workdir, fails):
        (workdir / "empty").mkdir()
        (workdir / "empty/notes.txt").touch()
        train = tiny_options["datasets"]["train"]
        train |= {"dataroot_gt": "empty", "lq": "bicubic", "io_backend": {"type": "disk"}}
        del train["dataroot_lq"]
        line = fails("train", "-opt", write_options(tiny_options))
        assert_message(line, "datasets.train.dataroot_gt: empty", "without images")

    def test_a_file_in_the_place_of_a_folder(self, tiny_options, write_options, workdir, fails):
        (workdir / "experiments").touch()
        line = fails("train", "-opt", write_options(tiny_options))
        assert "experiments" in line
        assert "out of the way" in line

    def test_an_unwritable_working_directory(self, tiny_options, write_options, workdir, fails, monkeypatch):
        name, mkdir = write_options(tiny_options), Path.mkdir

        def refuse(self: Path, *arguments: Any, **options: Any) -> None:
            if self.is_relative_to(workdir):
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            mkdir(self, *arguments, **options)

        monkeypatch.setattr(Path, "mkdir", refuse)
        assert_message(fails("train", "-opt", name), f"{workdir}/experiments/tiny", "permission denied")

    def test_a_busy_run_folder(self, tiny_options, write_options, workdir, fails):
        (workdir / "experiments/tiny").mkdir(parents=True)
        code = (
            "import filelock, sys\n"
            "with filelock.FileLock('experiments/tiny/.lock'):\n    print('held', flush=True); sys.stdin.read()\n"
        )
        command = [sys.executable, "-c", code]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline().strip() == "held"
            line = fails("train", "-opt", write_options(tiny_options))
            process.stdin.close()
        assert_message(line, f"{workdir / 'experiments/tiny'}", "in use by another process")


class TestData:
    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            (lambda path: (path / "data.mdb").write_bytes(b"x" * 9000), "cannot be opened as an LMDB"),
            (lambda path: os.truncate(path / "data.mdb", 20_000), "data.mdb: cut short"),
            (lambda path: _zero(path / "data.mdb", 2 * 4096), "data.mdb is damaged"),
            (lambda path: (path / "data.mdb").unlink(), "no such LMDB"),
            (lambda path: (path / "meta_info.txt").unlink(), "has no meta_info.txt"),
            (lambda path: (path / "meta_info.txt").write_text("?"), "meta_info.txt: line 1"),
        ],
        ids=["no LMDB", "cut short", "damaged inside", "no data", "no list", "no such list"],
    )
    def test_an_unreadable_lmdb(self, own_data, write_options, workdir, fails, damage, message):
        damage(workdir / "data/GT.lmdb")
        line = fails("train", "-opt", write_options(own_data))
        assert line.startswith("datasets.train.dataroot_gt: data/GT.lmdb")
        assert message in line

    def test_a_list_of_keys_that_are_not_there(self, own_data, write_options, workdir, fails):
        (workdir / "data/GT.lmdb/manifest.json").unlink()  # as BasicSR's own have none
        meta = workdir / "data/GT.lmdb/meta_info.txt"
        meta.write_text(meta.read_text().replace("000001_s001", "999999_s001"))
        line = fails("train", "-opt", write_options(own_data))
        assert_message(line, "datasets.train.dataroot_gt: data/GT.lmdb", "lists 999999_s001, data.mdb does not hold")

    @pytest.mark.parametrize("workers", [0, 1])
    def test_an_image_that_does_not_decode(self, own_data, write_options, workdir, fails, workers):
        import lmdb

        (workdir / "data/GT.lmdb/manifest.json").unlink()
        with lmdb.open(str(workdir / "data/GT.lmdb"), map_size=2**30) as environment:
            with environment.begin() as reading:
                keys = [bytes(key) for key, _ in reading.cursor()]
            with environment.begin(write=True) as writing:
                for key in keys:
                    writing.put(key, b"no image")
        own_data["datasets"]["train"]["num_worker_per_gpu"] = workers
        line = fails("train", "-opt", write_options(own_data))
        assert line.startswith("data/GT.lmdb: 00000")
        assert "cannot be decoded as an image" in line

    @pytest.mark.parametrize("workers", [0, 1])
    def test_images_smaller_than_the_crop(self, tiny_options, sample_pair, write_options, fails, workers):
        """In a folder, where nobody knows their sizes before they are read."""
        train = tiny_options["datasets"]["train"]
        train |= {"dataroot_gt": str(sample_pair / "test/GT"), "lq": "bicubic", "io_backend": {"type": "disk"}}
        train |= {"gt_size": 128, "num_worker_per_gpu": workers, "batch_size_per_gpu": 1}
        del train["dataroot_lq"]
        tiny_options["network_d"]["input_size"] = 128
        line = fails("train", "-opt", write_options(tiny_options))
        assert "astronaut.png: " in line
        assert "96x96 is smaller than gt_size 128" in line


class TestWeights:
    def _refused(self, fails, options, write_options, **path: Any) -> str:
        options["path"] |= path
        return fails("train", "-opt", write_options(options))

    def test_a_checkpoint_of_another_network(self, tiny_options, write_options, fails):
        torch.save({"params": {"conv_first.weight": torch.zeros(64, 3, 3, 3)}}, "other.pth")
        line = self._refused(fails, tiny_options, write_options, pretrain_network_g="other.pth")
        assert_message(line, "path.pretrain_network_g: RRDBNet", "0 of ", "other.pth")

    def test_a_checkpoint_that_would_run_code(self, tiny_options, write_options, fails, workdir):
        torch.save({"params": _Touch()}, "hostile.pth")
        line = self._refused(fails, tiny_options, write_options, pretrain_network_g="hostile.pth")
        assert_message(line, "path.pretrain_network_g: hostile.pth", "plain tensors")
        assert not (workdir / "touched").exists()

    @pytest.mark.parametrize("zipped", [True, False])
    def test_a_checkpoint_cut_short(self, tiny_options, write_options, fails, workdir, zipped):
        torch.save({"params": {"a": torch.zeros(1000)}}, "half.pth", _use_new_zipfile_serialization=zipped)
        os.truncate("half.pth", Path("half.pth").stat().st_size // 2)
        line = self._refused(fails, tiny_options, write_options, pretrain_network_g="half.pth")
        assert_message(line, "path.pretrain_network_g: half.pth", "its end is missing")

    def test_a_state_of_more_optimizers(self, finished, tiny_options, write_options, fails):
        for block in ("disc_perceptual_opt", "gan_opt", "optim_d"):
            del tiny_options["train"][block]
        del tiny_options["network_d"]
        line = fails("train", "-opt", write_options(tiny_options), "--auto_resume")
        assert "4.state: does not fit" in line


class TestNoSpace:
    """Each file of a run stands on /dev/full, where every write fails as on a full disk."""

    pytestmark = needs_full

    def _on_full(self, path: Path) -> None:
        path = path.with_name(path.name.replace("PID", str(os.getpid())))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(FULL)

    @pytest.mark.parametrize(
        ("file", "named"),
        [
            (".options.yml.tmp", "options.yml"),
            ("train.log", "train.log"),
            ("metrics.jsonl", "metrics.jsonl"),
            ("models/.net_g_6.pth.tmp-PID", "models/net_g_6.pth"),
            ("training_states/.6.state.tmp-PID", "training_states/6.state"),
            ("visualization/heldout/astronaut/.astronaut_6.png.tmp", "visualization/heldout/astronaut/astronaut_6.png"),
        ],
    )
    def test_train(self, finished, fails, file, named):
        self._on_full(finished / file)
        line = fails("train", "-opt", "options.yml", "--auto_resume")
        assert_message(line, f"{finished / named}", "no space left")

    def test_tensorboard(self, tiny_options, write_options, fails, monkeypatch, workdir):
        """Its files are named by the clock; the writer that it uses stands on /dev/full instead."""
        from tensorboard.compat.tensorflow_stub.io import gfile

        write = gfile.LocalFileSystem._write
        monkeypatch.setattr(
            gfile.LocalFileSystem, "_write", lambda self, name, *more: write(self, str(FULL).encode(), *more)
        )
        tiny_options["logger"]["use_tb_logger"] = True
        line = fails("train", "-opt", write_options(tiny_options))
        assert_message(line, f"{workdir / 'tb_logger/tiny'}", "no space left")

    @pytest.mark.parametrize("file", [".results.json.tmp-PID", "results.md"])
    def test_test(self, tiny_options, write_options, fails, monkeypatch, workdir, file):
        from gramgan_plugin.training import run_folder

        monkeypatch.setattr(run_folder, "record_run", lambda folder, opt: self._on_full(folder / file))
        options = _test_options(tiny_options)
        options["val"]["save_img"] = False
        line = fails("test", "-opt", write_options(options))
        named = file.removeprefix(".").partition(".tmp")[0]
        assert_message(line, f"{workdir / 'results/tiny' / named}", "no space left")


class TestMetrics:
    @pytest.fixture
    def options(self, tiny_options):
        options = _test_options(tiny_options)
        options["val"]["save_img"] = False
        return options

    def test_a_network_of_another_scale(self, options, write_options, fails):
        options["network_g"]["scale"] = 2
        line = fails("test", "-opt", write_options(options))
        assert "scale" in line

    @pytest.mark.parametrize(
        ("enlarge", "size"),
        [(lambda batch: batch["gt"][:, :1], "96x96 in 1 channel"), (lambda batch: batch["lq"], "24x24 in 3 channels")],
        ids=["gray", "another size"],
    )
    def test_a_pair_that_does_not_fit(self, options, write_options, fails, monkeypatch, enlarge, size):
        from gramgan_plugin.evaluation import option_sets

        monkeypatch.setattr(option_sets, "ModelEnlarger", lambda model, tile: enlarge)
        line = fails("test", "-opt", write_options(options))
        assert_message(line, "heldout: astronaut", f"tiny gives {size}, GT is 96x96 in 3 channels")

    def test_an_image_that_cannot_be_measured(self, options, write_options, workdir, capsys):
        """It is left out of the means, and the exit code says that some failed."""
        block = options["datasets"]["test_1"]
        gt = workdir / "GT"
        gt.mkdir()
        (gt / "whole.png").write_bytes((Path(block.pop("dataroot_gt")) / "astronaut.png").read_bytes())
        (gt / "torn.png").write_bytes((gt / "whole.png").read_bytes()[:2000])
        del block["dataroot_lq"]
        block |= {"dataroot_gt": str(gt), "lq": "bicubic"}
        assert main(["test", "-opt", write_options(options)]) == 3
        assert capsys.readouterr().out.count("- heldout: torn is left out of the mean of psnr") == 1
        rows = json.loads((workdir / "results/tiny/results.json").read_text())["rows"]
        assert [(row["model"], set(row["per_image"]), set(row["left_out"])) for row in rows] == [
            ("bicubic", {"whole"}, {"torn"}),
            ("tiny", {"whole"}, {"torn"}),
        ]

    def test_what_the_metric_itself_refuses(self, options, write_options, fails, monkeypatch):
        from gramgan_plugin.evaluation import measure

        def refuses(img: Any, img2: Any, **other: Any) -> float:
            raise ValueError("an image of 7 pixels at least\nmore")

        monkeypatch.setattr(measure, "lookup", lambda *arguments: refuses)
        line = fails("test", "-opt", write_options(options))
        reason = ("calculate_psnr", "astronaut (96x96 in 3 channels): an image of 7 pixels at least")
        assert_message(line, "val.metrics.psnr", *reason)
        assert "more" not in line


class TestMemory:
    def _step_that(self, monkeypatch, error_of) -> None:
        from gramgan_plugin.models.gramgan_model import GramGANModel

        monkeypatch.setattr(GramGANModel, "optimize_parameters", lambda self, iteration: error_of())

    def test_out_of_memory_on_the_cpu(self, tiny_options, write_options, fails, monkeypatch):
        self._step_that(monkeypatch, lambda: torch.empty(2**60))
        line = fails("train", "-opt", write_options(tiny_options))
        assert line.startswith("out of memory (")
        assert "datasets.train.batch_size_per_gpu" in line

    def test_out_of_memory_on_a_gpu(self, tiny_options, write_options, fails, monkeypatch):
        def full() -> None:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation")

        self._step_that(monkeypatch, full)
        line = fails("train", "-opt", write_options(tiny_options))
        assert line.startswith("out of memory (CUDA out of memory. Tried to allocate 20.00 GiB)")


class TestVerbose:
    @pytest.mark.parametrize(
        "argv",
        [
            ["--verbose", "train", "-opt", "none.yml"],
            ["train", "--verbose", "-opt", "none.yml"],
            ["train", "-opt", "none.yml", "--verbose"],
            ["prepare", "folder", "none", "--out", "x", "--verbose"],
            ["prepare", "--verbose", "folder", "none", "--out", "x"],
        ],
    )
    def test_before_and_after_the_subcommand(self, workdir, argv):
        with pytest.raises(UserError):
            main(argv)

    def test_without(self, workdir, fails):
        assert fails("train", "-opt", "none.yml").startswith("none.yml: no such option file")


class TestExplain:
    @pytest.mark.parametrize(
        ("error", "message"),
        [
            (OSError(errno.ENOSPC, "x"), "no space left on the disk"),
            (OSError(errno.EDQUOT, "x", "a"), "a: the disk quota"),
            (OSError(errno.EROFS, "x", "a"), "a: the file system is read-only"),
            (FileNotFoundError(errno.ENOENT, "x", "a"), "a: no such file or folder"),
            (MemoryError(), "out of memory (MemoryError); "),
            (
                RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
                "a process that loads data ran out of memory (DataLoader worker (pid 7)",
            ),
            (
                RuntimeError("unable to write to file </torch_7_8_0>: No space left on device (28)"),
                "a process that loads data ran out of memory (unable",
            ),
        ],
    )
    def test_what_the_user_can_fix(self, error, message):
        (line,) = explain(error, "train")
        assert line.startswith(message)

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.EBADF, "Bad file descriptor"),
            OSError(errno.EINVAL, "Invalid argument", "a"),
            PermissionError(errno.EPERM, "no file is named"),
            OSError("no number"),
            RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Segmentation fault. "),
            KeyError("lq"),
            AttributeError(),
        ],
    )
    def test_a_bug_of_ours_keeps_its_traceback(self, error, workdir, monkeypatch):
        assert explain(error, "train") is None
        from gramgan_plugin.prepare import folders

        def raises(*arguments: Any) -> None:
            raise error

        monkeypatch.setattr(folders, "folders_photos", raises)
        with pytest.raises(type(error)):
            main(["prepare", "folder", "photos", "--out", "out"])

    def test_from_a_loading_process(self):
        import lmdb

        error = lmdb.CorruptedError("Caught CorruptedError in DataLoader worker process 0.\nOriginal\nlmdb.X: a page")
        (line,) = explain(error, "train")
        assert line.startswith("a damaged LMDB (a page)")


def _zero(file: Path, start: int) -> None:
    """Overwrite a file with zeros from a place on."""
    data = file.read_bytes()
    file.write_bytes(data[:start] + bytes(len(data) - start))


class _Touch:
    """Unpickled, it writes a file."""

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (Path("touched"),)


def _test_options(options: dict[str, Any]) -> dict[str, Any]:
    options = deepcopy(options)
    for key in ("train", "network_d", "logger"):
        del options[key]
    del options["datasets"]["train"]
    options["datasets"]["test_1"] = options["datasets"].pop("val")
    return options
