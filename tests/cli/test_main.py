import json
import subprocess
import sys
from copy import deepcopy
from importlib.metadata import version
from pathlib import Path

import cv2
import pytest

from gramgan_plugin.cli.main import main
from tests.messages import assert_message


class TestTrain:
    def test_as_a_command(self, tiny_options, write_options, workdir):
        command = [sys.executable, "-m", "gramgan_plugin", "train", "-opt", write_options(tiny_options)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        assert (workdir / "experiments/tiny/models/net_g_latest.pth").is_file()
        assert "l_g_gram" in done.stderr
        assert "Traceback" not in done.stderr

    def test_upstreams_switches(self, tiny_options, write_options, workdir):
        name = write_options(tiny_options)
        assert main(["train", "-opt", name, "--debug", "--local_rank", "0", "--launcher", "none"]) == 0
        assert (workdir / "experiments/debug_tiny").is_dir()
        assert main(["train", "-opt", name, "--local-rank", "0", "--force_yml", "train:total_iter=2", "name=two"]) == 0
        assert (workdir / "experiments/two/training_states/2.json").is_file()
        assert main(["train", "-opt", name, "--auto_resume", "--force_yml", "train:total_iter=3", "name=two"]) == 0
        assert (workdir / "experiments/two/training_states/3.json").is_file()

    def test_one_process_under_a_launcher(self, tiny_options, write_options, workdir):
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=1"]
        command += ["-m", "gramgan_plugin", "train", "-opt", write_options(tiny_options), "--launcher", "pytorch"]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (workdir / "experiments/tiny/models/net_g_latest.pth").is_file()

    def test_a_launcher_without_its_environment(self, tiny_options, write_options, capsys, monkeypatch):
        for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name, raising=False)
        assert main(["train", "-opt", write_options(tiny_options), "--launcher", "pytorch"]) == 2
        assert "start the command with torchrun" in capsys.readouterr().err


class TestMistakes:
    @pytest.mark.parametrize(
        ("change", "where", "kind"),
        [
            (lambda o: o["train"].update(pixle_opt={}), "train.pixle_opt", "did you mean 'pixel_opt'"),
            (lambda o: o.update(name="../x"), "name", "'../x' cannot be a folder's name"),
            (
                lambda o: o["datasets"]["train"].update(dataroot_gt="no\x1b[31m.lmdb"),
                r"datasets.train.dataroot_gt: no\x1b[31m.lmdb",
                "no such folder",
            ),
            (
                lambda o: o["path"].update(pretrain_network_g="no.pth"),
                "path.pretrain_network_g: no.pth",
                "no such checkpoint",
            ),
        ],
    )
    def test_one_line_and_exit_code_2(self, tiny_options, write_options, capsys, change, where, kind):
        change(tiny_options)
        assert main(["train", "-opt", write_options(tiny_options)]) == 2
        (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("basicsr train: ")]
        assert_message(line, f"basicsr train: {where}", kind)

    def test_verbose_shows_the_traceback(self, tiny_options, write_options):
        from gramgan_plugin.errors import UserError

        with pytest.raises(UserError):
            main(["--verbose", "train", "-opt", write_options(tiny_options | {"name": ""})])

    def test_no_such_file(self, workdir, capsys):
        assert main(["train", "-opt", "train_gramgan.yml"]) == 2
        assert_message(capsys.readouterr().err, "basicsr train: train_gramgan.yml", "no such option file", "did you")


class TestTest:
    @pytest.fixture
    def options(self, tiny_options, sample_pair):
        options = deepcopy(tiny_options)
        for key in ("train", "network_d", "logger"):
            del options[key]
        test = options["datasets"].pop("val")
        del options["datasets"]["train"]
        made = {"name": "made", "type": "PairedSRDataset", "dataroot_gt": test["dataroot_gt"], "lq": "bicubic"}
        options["datasets"] |= {"test_1": test, "test_2": made}
        options["val"]["metrics"]["ssim"] = {"type": "calculate_ssim", "crop_border": 4, "test_y_channel": True}
        return options

    def test_table_json_and_pictures(self, options, write_options, workdir, capsys, sample_pair):
        assert main(["test", "-opt", write_options(options)]) == 0
        rows = json.loads((workdir / "results/tiny/results.json").read_text())["rows"]
        assert {(r["model"], r["set"], r["metric"]) for r in rows} == {
            (model, test_set, metric)
            for model in ("bicubic", "tiny")
            for test_set in ("heldout", "made")
            for metric in ("psnr", "ssim")
        }
        by_key = {(r["model"], r["set"], r["metric"]): r for r in rows}
        # LQ made on the fly is the LQ that was packed.
        for model in ("bicubic", "tiny"):
            assert by_key[model, "heldout", "psnr"]["mean"] == by_key[model, "made", "psnr"]["mean"]
        # The baseline, measured by BasicSR's own functions from the files.
        from basicsr.metrics import calculate_psnr
        from basicsr.utils.matlab_functions import imresize

        gt = cv2.imread(str(sample_pair / "test/GT/astronaut.png"))
        lq = cv2.imread(str(sample_pair / "test/LQ_x4/astronaut.png"))
        enlarged = (imresize(lq / 255.0, 4).clip(0, 1) * 255).round().astype("uint8")
        expected = calculate_psnr(enlarged, gt, crop_border=4, test_y_channel=True)
        assert by_key["bicubic", "heldout", "psnr"]["mean"] == pytest.approx(expected, abs=0.01)
        assert cv2.imread("results/tiny/visualization/heldout/astronaut_tiny.png").shape == (96, 96, 3)
        comparison = cv2.imread("results/tiny/visualization/heldout/astronaut_comparison.png")
        assert comparison.shape[1] > 3 * 96, "three versions side by side"
        assert "| heldout | bicubic |" in capsys.readouterr().out

    def test_pictures_only_on_request(self, options, write_options, workdir):
        options["val"]["save_img"] = False
        assert main(["test", "-opt", write_options(options)]) == 0
        assert not list(workdir.rglob("*.png"))


class TestList:
    def test_what_is_registered_and_by_whom(self, capsys):
        assert main(["list"]) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        for name, package in (
            ("GramGANModel", "gramgan_plugin"),
            ("GramPatchLoss", "gramgan_plugin"),
            ("PairedSRDataset", "gramgan_plugin"),
            ("RRDBNet", "basicsr"),
            ("calculate_psnr", "basicsr"),
        ):
            assert [name, package] in lines
        assert main(["list", "loss"]) == 0
        assert "RRDBNet" not in capsys.readouterr().out

    def test_one_name(self, capsys):
        assert main(["list", "loss", "GramPatchLoss"]) == 0
        assert "patch_size: int = 4" in capsys.readouterr().out
        assert main(["list", "loss", "GramPachLoss"]) == 2
        assert "did you mean 'GramPatchLoss'" in capsys.readouterr().err

    def test_a_third_partys_module(self, workdir, capsys, monkeypatch):
        monkeypatch.setattr(sys, "path", list(sys.path))
        (workdir / "my_losses_for_test.py").write_text(
            "from basicsr.utils.registry import LOSS_REGISTRY\n"
            "@LOSS_REGISTRY.register()\nclass MyLossForTest:\n    'A loss.'\n    def __init__(self, weight=3): pass\n"
        )
        assert main(["list", "loss", "MyLossForTest", "--plugin", "my_losses_for_test"]) == 0
        assert "MyLossForTest(weight=3)" in capsys.readouterr().out
        assert main(["list", "--plugin", "no_such_module_for_test"]) == 2
        assert "plugin no_such_module_for_test: cannot be imported" in capsys.readouterr().err

    def test_version(self, capsys):
        with pytest.raises(SystemExit, match="0"):
            main(["--version"])
        out = capsys.readouterr().out
        assert out.startswith("gramgan-plugin 0.")
        python = ".".join(map(str, sys.version_info[:3]))
        assert out.endswith(f" (basicsr 1.4.2, torch {version('torch')}, Python {python})\n")


def test_the_installed_command(workdir):
    script = Path(sys.executable).with_name("basicsr")
    done = subprocess.run([script, "list", "model"], capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr
    assert "GramGANModel" in done.stdout
