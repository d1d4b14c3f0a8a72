import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import skimage.data
import torch
import yaml

import gramgan_plugin  # noqa: F401  (sets the hooks that make `import basicsr` work; before anything of basicsr)
from tests.config.upstream_options import REAL_ESRGAN
from tests.servers import raw_server, server  # noqa: F401  (fixtures)

if TYPE_CHECKING:
    from gramgan_plugin.prepare.pack import Report

collect_ignore = ["mmagic"]  # scripts for MMagic's own environment

# The tests' networks are tiny: more threads only get in each other's way.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked ``gpu`` skip where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


def write_photo(path: Path, image: np.ndarray) -> None:
    """Write an RGB array as a file of the suffix's format; the name may be any."""
    ok, data = cv2.imencode(path.suffix, image[..., ::-1])
    assert ok
    path.write_bytes(data.tobytes())


@pytest.fixture(autouse=True)
def weights_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of public weights: an empty one instead of the user's."""
    folder = tmp_path_factory.getbasetemp() / "no_weights"
    monkeypatch.setenv("GRAMGAN_WEIGHTS", str(folder))
    return folder


@pytest.fixture(scope="session")
def photo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three photos whose sides are no multiples of 4."""
    folder = tmp_path_factory.mktemp("photos")
    write_photo(folder / "chelsea.png", skimage.data.chelsea()[:203, :330])
    write_photo(folder / "émile.png", skimage.data.astronaut()[:165, 100:341])
    write_photo(folder / "coffee.png", skimage.data.coffee()[50:221, 200:397])
    return folder


@pytest.fixture(scope="session")
def prepared(photo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> "Report":
    """Sub-images of two of them; the third, coffee, is held out."""
    from gramgan_plugin.prepare.folders import folder_photos
    from gramgan_plugin.prepare.pack import prepare_photos
    from gramgan_plugin.prepare.plan import Settings
    from gramgan_plugin.prepare.presets import Preset

    out = tmp_path_factory.mktemp("prepared") / "set"
    settings = Settings(4, Preset(96, 64, 0))
    return prepare_photos(folder_photos(photo_folder), out, settings, hold_out=["coffee"], progress=False)


@pytest.fixture(scope="session")
def sample_pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set of real photos: LMDBs of 96-pixel sub-images, and one held-out photo, cut to 96 pixels."""
    from gramgan_plugin.prepare.pack import prepare_photos
    from gramgan_plugin.prepare.plan import Settings
    from gramgan_plugin.prepare.presets import Preset
    from gramgan_plugin.prepare.sample import sample_photos

    source = tmp_path_factory.mktemp("photos")
    photos = dict(sample_photos())
    for name, top in (("chelsea.png", 40), ("coffee.png", 100), ("astronaut.png", 60)):
        cv2.imwrite(str(source / name), cv2.imread(str(photos[name]))[top : top + 192, 100:292])
    cv2.imwrite(str(source / "astronaut.png"), cv2.imread(str(source / "astronaut.png"))[:96, :96])
    out = tmp_path_factory.mktemp("data") / "set"
    prepare_photos(
        [(path.name, path) for path in source.iterdir()],
        out,
        Settings(4, Preset(96, 96, 0)),
        hold_out=("astronaut",),
        progress=False,
    )
    return out


@pytest.fixture
def tiny_options(sample_pair: Path) -> dict[str, Any]:
    """A Gram-GAN of a few thousand parameters over ``sample_pair``, as an option file would have it."""
    return tiny_gramgan(sample_pair)


def tiny_gramgan(sample_pair: Path) -> dict[str, Any]:
    """The options of ``tiny_options``, for fixtures of a wider scope."""
    network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 1, "num_grow_ch": 4}
    optimizer = {"type": "Adam", "lr": 1e-4, "betas": [0.9, 0.999]}
    return {
        "name": "tiny",
        "model_type": "GramGANModel",
        "scale": 4,
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {
            "train": {
                "name": "train",
                "type": "PairedSRDataset",
                "dataroot_gt": str(sample_pair / "GT.lmdb"),
                "dataroot_lq": str(sample_pair / "LQ_x4.lmdb"),
                "io_backend": {"type": "lmdb"},
                "gt_size": 64,
                "use_hflip": True,
                "use_rot": True,
                "num_worker_per_gpu": 0,
                "batch_size_per_gpu": 2,
                "dataset_enlarge_ratio": 1,
            },
            "val": {
                "name": "heldout",
                "type": "PairedSRDataset",
                "dataroot_gt": str(sample_pair / "test" / "GT"),
                "dataroot_lq": str(sample_pair / "test" / "LQ_x4"),
                "io_backend": {"type": "disk"},
            },
        },
        "network_g": {**network, "scale": 4},
        "network_d": {"type": "GramGANDiscriminator", "num_in_ch": 3, "num_feat": 4, "input_size": 64},
        "path": {"pretrain_network_g": None, "strict_load_g": True, "resume_state": None},
        "train": {
            "ema_decay": 0.9,
            "optim_g": dict(optimizer),
            "optim_d": dict(optimizer),
            "scheduler": {"type": "CosineRestartWarmupLR", "period": 100, "warmup_iter": 2, "eta_min": 1e-7},
            "total_iter": 4,
            "warmup_iter": -1,
            "pixel_opt": {"type": "L1Loss", "loss_weight": 1.0, "reduction": "mean"},
            "gram_patch_opt": {"type": "GramPatchLoss", "loss_weight": 1.0, "center": True},
            "disc_perceptual_opt": {"type": "DiscPerceptualLoss", "taps": ["conv1_0", "conv3_0"]},
            "gan_opt": {"type": "MaskedRaGANLoss", "loss_weight": 0.005},
        },
        "val": {
            "val_freq": 4,
            "save_img": True,
            "metrics": {"psnr": {"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False},
    }


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def write_options(workdir: Path) -> Any:
    """Writes options as a YAML file in the working directory and returns its name."""

    def write(options: dict[str, Any], name: str = "options.yml") -> str:
        (workdir / name).write_text(yaml.safe_dump(options, sort_keys=False), encoding="utf-8")
        return name

    return write


@pytest.fixture(scope="session")
def degradation() -> dict[str, Any]:
    """The keys of Real-ESRGAN's degradation at the top of an option file, with its own values."""
    return dict(REAL_ESRGAN)


@pytest.fixture(scope="session")
def degraded_data() -> dict[str, Any]:
    """The keys of BasicSR's RealESRGANDataset but its paths, with Real-ESRGAN's own values."""
    blur = {
        f"{key}{suffix}": value
        for suffix, sigma in (("", 3), ("2", 1.5))
        for key, value in {
            "blur_kernel_size": 21,
            "kernel_list": ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"],
            "kernel_prob": [0.45, 0.25, 0.12, 0.03, 0.12, 0.03],
            "sinc_prob": 0.1,
            "blur_sigma": [0.2, sigma],
            "betag_range": [0.5, 4],
            "betap_range": [1, 2],
        }.items()
    }
    loading = {"io_backend": {"type": "disk"}, "use_hflip": True, "use_rot": False}
    return {"type": "RealESRGANDataset", "final_sinc_prob": 0.8, **blur, **loading}
