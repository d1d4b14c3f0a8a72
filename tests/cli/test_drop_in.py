"""The plugin in upstream's loop, and upstream's options in ours; each in a process and a folder of its own."""

import runpy
import subprocess
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

UPSTREAM = (
    "import gramgan_plugin, pathlib\n"
    "from basicsr.train import train_pipeline\n"
    "train_pipeline(str(pathlib.Path.cwd()))\n"
)


def _run(command: list[str], workdir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=workdir, capture_output=True, text=True, check=False, timeout=300, stdin=subprocess.DEVNULL
    )


@pytest.fixture(scope="session")
def random_vgg19(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG19 weights of random numbers, with torchvision's names and shapes (the classifier is not read)."""
    from torchvision.models import vgg19

    torch.manual_seed(0)
    features = vgg19(weights=None).features
    # vgg_arch.py loads them into the whole network before it cuts it, so the classifier has to be there, too.
    state = {f"features.{name}": value for name, value in features.state_dict().items()}
    state |= {name: torch.zeros(shape) for name, shape in _classifier_shapes().items()}
    path = tmp_path_factory.mktemp("vgg") / "vgg19-dcbb9e9d.pth"
    torch.save(state, path)
    return path


def _classifier_shapes() -> dict[str, tuple[int, ...]]:
    layers = {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}
    return {
        f"classifier.{place}.{part}": shape if part == "weight" else shape[:1]
        for place, shape in layers.items()
        for part in ("weight", "bias")
    }


def _upstream_esrgan(sample_pair: Path) -> dict[str, Any]:
    """BasicSR 1.4.2's train_ESRGAN_x4.yml, over our small data and from no checkpoint."""
    options = runpy.run_path(str(Path(__file__).parents[1] / "config/upstream_options.py"))["esrgan"]()
    train, val = options["datasets"]["train"], options["datasets"]["val"]
    train |= {"dataroot_gt": str(sample_pair / "GT.lmdb"), "dataroot_lq": str(sample_pair / "LQ_x4.lmdb")}
    train |= {"io_backend": {"type": "lmdb"}, "num_worker_per_gpu": 0}
    val |= {"dataroot_gt": str(sample_pair / "test/GT"), "dataroot_lq": str(sample_pair / "test/LQ_x4")}
    options["path"]["pretrain_network_g"] = None
    options["name"] = "ESRGAN_x4"
    return options


@pytest.fixture(scope="session")
def large_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sub-images of 128 pixels, the size of upstream's discriminator."""
    from gramgan_plugin.prepare.pack import prepare_photos
    from gramgan_plugin.prepare.plan import Settings
    from gramgan_plugin.prepare.presets import Preset
    from gramgan_plugin.prepare.sample import sample_photos

    out = tmp_path_factory.mktemp("large") / "set"
    photos = [(name, path) for name, path in sample_photos() if name in ("chelsea.png", "coffee.png")]
    prepare_photos(photos, out, Settings(4, Preset(128, 128, 0)), hold_out=("coffee",), progress=False)
    return out


class TestOurOptionsUnderUpstreamsLoop:
    def test_one_flat_file(self, tiny_options, random_vgg19, workdir):
        (workdir / "experiments/pretrained_models").mkdir(parents=True)
        (workdir / "experiments/pretrained_models" / random_vgg19.name).symlink_to(random_vgg19)
        options = deepcopy(tiny_options)
        options["datasets"]["val"] |= {"type": "PairedImageDataset"}
        options["train"]["perceptual_opt"] = {"type": "VGGPerceptualLoss", "layer_weights": {"conv2_2": 1.0}}
        (workdir / "flat.yml").write_text(yaml.safe_dump(options, sort_keys=False))
        done = _run([sys.executable, "-c", UPSTREAM, "-opt", "flat.yml"], workdir)
        assert done.returncode == 0, done.stderr[-3000:]
        run = workdir / "experiments/tiny"
        for name in ("models/net_g_4.pth", "models/net_d_4.pth", "models/net_g_latest.pth", "training_states/4.json"):
            assert (run / name).is_file(), name
        for key in ("l_g_percep", "l_g_gram", "l_g_dp", "l_g_gan", "grad_g_gram", "# psnr"):
            assert key in done.stderr, key

        # The same file under our own loop ends in the same place, but for the order of the data.
        from gramgan_plugin.cli.main import main

        assert main(["train", "-opt", "flat.yml"]) == 0
        theirs = next(workdir.glob("experiments/tiny_archived_*"))
        assert set(torch.load(run / "models/net_g_4.pth", weights_only=True)["params"]) == set(
            torch.load(theirs / "models/net_g_4.pth", weights_only=True)["params"]
        )


class TestUpstreamsOptionsUnderOurLoop:
    def test_esrgan(self, large_pair, random_vgg19, workdir):
        (workdir / "experiments/pretrained_models").mkdir(parents=True)
        (workdir / "experiments/pretrained_models" / random_vgg19.name).symlink_to(random_vgg19)
        (workdir / "train_ESRGAN_x4.yml").write_text(yaml.safe_dump(_upstream_esrgan(large_pair), sort_keys=False))
        command = [sys.executable, "-m", "gramgan_plugin", "train", "-opt", "train_ESRGAN_x4.yml", "--force_yml"]
        small = [
            "num_gpu=0",
            "network_g:num_feat=8",
            "network_g:num_block=1",
            "network_d:num_feat=4",
            "datasets:train:batch_size_per_gpu=2",
            "train:total_iter=3",
            "logger:print_freq=1",
            "logger:save_checkpoint_freq=2",
        ]
        done = _run([*command, *small], workdir)
        assert done.returncode == 0, done.stderr[-3000:]
        run = workdir / "experiments/ESRGAN_x4"
        lines = (run / "metrics.jsonl").read_text()
        for key in ("l_g_pix", "l_g_percep", "l_g_gan", "l_d_real", "l_d_fake"):
            assert lines.count(f'"{key}"') == 3
        assert '"psnr"' in lines
        assert (run / "training_states/2.json").is_file()

        # Resume, which fails on a CPU in upstream's own loop.
        done = _run([*command, *small[:-3], "train:total_iter=4", *small[-2:], "--auto_resume"], workdir)
        assert done.returncode == 0, done.stderr[-3000:]
        assert "resuming from iteration 3 of 4" in done.stderr
        assert (run / "training_states/4.json").is_file()


class TestUpstreamsDiscriminatorInOurModel:
    def test_vgg_style_discriminator_and_ganloss(self, large_pair, tiny_options, write_options):
        from gramgan_plugin.cli.main import main

        options = deepcopy(tiny_options)
        options["datasets"]["train"] |= {
            "dataroot_gt": str(large_pair / "GT.lmdb"),
            "dataroot_lq": str(large_pair / "LQ_x4.lmdb"),
            "gt_size": 128,
        }
        options["network_d"] = {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 4}
        options["train"]["gan_opt"] = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 5e-3}
        del options["train"]["disc_perceptual_opt"]
        assert main(["train", "-opt", write_options(options)]) == 0
        assert '"grad_g_gan"' in Path("experiments/tiny/metrics.jsonl").read_text()
