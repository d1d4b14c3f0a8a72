import json
import logging
import re
import shutil
from pathlib import Path

import cv2
import pytest
import torch

import gramgan_plugin.quickstart as module
from gramgan_plugin.cli.main import main
from gramgan_plugin.config import load_options
from gramgan_plugin.errors import Preempted
from gramgan_plugin.quickstart import changes, run_quickstart
from gramgan_plugin.utils.yaml_io import parse_yaml


@pytest.fixture
def no_weights(workdir, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(workdir / "hub"))
    return workdir


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A quickstart of two iterations."""
    folder, said = tmp_path_factory.mktemp("quickstart") / "experiments/quickstart", []
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parents[1])
        Path("4x-RRDB-Lite").write_bytes(b"another")  # is not taken for the package's
        patch.setattr(torch.hub, "get_dir", lambda: str(folder.parent / "hub"))
        result = run_quickstart(folder, said.append, iterations=2)
    return folder, said, result


class TestQuickstart:
    def test_what_it_leaves(self, done):
        folder, _, _ = done
        for name in ("models/net_g_latest.pth", "training_states/2.json", "train.log", "metrics.jsonl", "options.yml"):
            assert (folder / "gramgan" / name).is_file(), name
        comparison = cv2.imread(str(folder / "comparison.png"))
        assert comparison.shape[1] > 4 * 250, "four versions side by side"
        assert cv2.imread(str(folder / "losses.png")).std() > 0
        assert not list(folder.rglob("*.tmp*"))

    def test_results(self, done):
        folder, said, result = done
        assert json.loads((folder / "results.json").read_text()) == result
        assert list(result) == ["bicubic", "l1", "gramgan"]
        assert all(set(row) == {"psnr_y", "ssim_y", "niqe"} for row in result.values())
        assert result["bicubic"]["psnr_y"] == pytest.approx(27.068, abs=0.01)
        (report,) = [line for line in said if "PSNR-Y" in line]
        assert "bicubic    27.07   0.80" in report
        assert "basicsr prepare folder" in report
        assert "DIV2K" in report

    def test_it_says_that_there_is_no_vgg_term(self, done):
        folder, said, _ = done
        assert any("without the VGG term" in line for line in said)
        assert "l_g_percep" not in (folder / "gramgan/metrics.jsonl").read_text()

    def test_it_is_the_shipped_option_files(self, done):
        used = parse_yaml((done[0] / "gramgan/options.yml").read_text(), "options.yml")
        shipped = load_options(["train_gramgan_sample"])
        for key in ("network_g", "network_d"):
            assert used[key].items() >= shipped[key].items()
        for block, options in shipped["train"].items():
            if block.endswith("_opt"):
                assert used["train"][block].items() >= options.items()

    def test_it_starts_from_the_weights_of_this_package(self, done):
        folder, _, result = done
        log = (folder / "gramgan/train.log").read_text()
        assert re.search(r"(\d+) of \1 tensors fit those of \S+4x-RRDB-Lite\.safetensors", log)
        assert "4x-RRDB-Lite.safetensors" in (folder / "test_l1/test.log").read_text()
        assert "gramgan/models/net_g_latest.pth" in (folder / "test_gramgan/test.log").read_text()
        assert result["l1"]["psnr_y"] > result["bicubic"]["psnr_y"] + 1

    def test_an_older_one_is_archived(self, done, monkeypatch):
        folder, _, _ = done

        def stop(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "prepare_sample", stop)
        with pytest.raises(KeyboardInterrupt):
            run_quickstart(folder)
        (archived,) = folder.parent.glob("quickstart_archived_*")
        assert (archived / "results.json").is_file()
        shutil.rmtree(folder)
        archived.rename(folder)


class TestChanges:
    def test_the_vgg_term_where_there_are_weights(self, no_weights):
        assert "perceptual_opt" not in changes("a.pth")["train"]
        place = Path("experiments/pretrained_models/vgg19-dcbb9e9d.pth")
        for path in (place, no_weights / "hub/checkpoints" / place.name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            block = changes("a.pth")["train"]["perceptual_opt"]
            assert block["vgg_weights"] == str(path)
            assert block["layer_weights"] == {"conv2_2": 1.0, "conv4_2": 0.1, "conv4_4": 0.01}
            path.unlink()

    def test_the_length(self, no_weights):
        schedule = {"period": 7, "warmup_iter": 3}
        assert changes("a.pth", 7)["train"] == {"total_iter": 7, "scheduler": schedule}

    def test_a_signal(self, workdir, monkeypatch):
        """A quickstart has no checkpoint to resume from."""

        def preempted(options: object) -> None:
            raise Preempted("stopped by SIGTERM; run the same command again with --auto_resume to resume")

        monkeypatch.setattr(module, "train", preempted)
        with pytest.raises(Preempted, match=r"^stopped by a signal; .* from the beginning$"):
            run_quickstart(workdir / "quickstart")


def test_as_a_command(workdir, monkeypatch):
    called = []
    monkeypatch.setattr(module, "run_quickstart", lambda: called.append(Path.cwd()))
    assert main(["quickstart"]) == 0
    assert called == [workdir]
    logging.getLogger("basicsr").handlers.clear()


def test_what_the_machine_does_is_measured(done):
    folder, said, _ = done
    (line,) = [line for line in said if "an iteration takes" in line]
    assert "fp32" in line or "bf16" in line
    used = parse_yaml((folder / "gramgan/options.yml").read_text(), "options.yml")["train"]
    assert used["precision"] in ("fp32", "bf16")
    assert isinstance(used["channels_last"], bool)
