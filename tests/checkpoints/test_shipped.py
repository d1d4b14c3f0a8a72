"""The weights that come with the package: what they are, and what they make of a photo."""

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from safetensors.numpy import load_file

from gramgan_plugin.checkpoints.inspect_weights import describe_weights
from gramgan_plugin.checkpoints.public_weights import WEIGHTS
from gramgan_plugin.checkpoints.weights_cache import SHIPPED, find, verify
from gramgan_plugin.checkpoints.weights_file import read_weights
from gramgan_plugin.cli.main import main
from gramgan_plugin.functional.matlab_bicubic import lq_levels, matlab_bicubic
from gramgan_plugin.inference.upscaler import Upscaler

NAMES = [weights.name for weights in WEIGHTS.values() if weights.shipped]
GT = skimage.data.astronaut()[40:232, 140:332]  # no training photo
REFERENCE = Path(__file__).parent / "shipped"


def _lq() -> np.ndarray:
    pixels = torch.from_numpy(GT.copy()).permute(2, 0, 1)[None].double()
    return lq_levels(pixels, 4)[0].permute(1, 2, 0).byte().numpy()


def _psnr(one: np.ndarray, other: np.ndarray) -> float:
    difference = one[4:-4, 4:-4].astype(float) - other[4:-4, 4:-4]
    return float(10 * np.log10(255**2 / np.mean(difference**2)))


@pytest.mark.parametrize("name", NAMES)
def test_file(name):
    weights = WEIGHTS[name]
    path = find(weights)
    assert path is not None
    assert verify(weights, path) is None
    facts = describe_weights(path)
    assert (facts["architecture"], facts["scale"], facts["averaged"]) == ("RRDBNet", 4, True)
    assert (SHIPPED / f"{name}.md").is_file()
    averaged = read_weights(path, "params_ema").state  # as its metadata call them
    assert averaged.keys() == load_file(path).keys()


@pytest.mark.parametrize("name", NAMES)
def test_a_photo(name):
    """Within a level of the stored result."""
    sr = Upscaler(name, engine="torch", precision="fp32", device="cpu")(_lq())
    stored = cv2.imread(str(REFERENCE / f"{name}.png"))[..., ::-1]
    assert np.abs(sr.astype(int) - stored.astype(int)).max() <= 1
    bicubic = matlab_bicubic(torch.from_numpy(_lq()).permute(2, 0, 1)[None].double(), up=4)
    bicubic = bicubic.clamp(0, 255).round()[0].permute(1, 2, 0).numpy()
    if "RRDB" in name:
        assert _psnr(sr, GT) > _psnr(bicubic, GT) + 1


@pytest.mark.parametrize(("strength", "share"), [(None, 1), (0, 0), (0.25, 0.25), (1, 1)])
def test_strength(strength, share, workdir, caplog):
    """The mean of both networks' weights, here by numpy; a file of a network's name is not taken for it."""
    for name in NAMES:
        Path(name).write_bytes(b"another")
    cv2.imwrite("lq.png", _lq()[..., ::-1])
    more = () if strength is None else ("--strength", str(strength))
    with caplog.at_level("INFO", logger="gramgan_plugin"):
        assert main(["upscale", "lq.png", "--engine", "torch", "--precision", "fp32", *more]) == 0
    assert f"4x-GramGAN-Lite, strength {share}; -m takes another network" in caplog.messages
    l1, gan = (load_file(SHIPPED / f"{name}.safetensors") for name in ("4x-RRDB-Lite", "4x-GramGAN-Lite"))
    net = RRDBNet(3, 3, 4, num_feat=32, num_block=3, num_grow_ch=32)
    net.load_state_dict({key: torch.from_numpy((1 - share) * l1[key] + share * gan[key]) for key in l1})
    lq = torch.from_numpy(_lq()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        expected = (net(lq)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    sr = cv2.imread("upscaled/lq.png")[..., ::-1]
    assert np.abs(sr - expected).max() <= 1


@pytest.mark.parametrize(
    "wrong",
    [
        ("--strength", "1.5"),
        ("--strength", "nan"),
        ("-m", "bicubic", "--strength", "1"),
        *[("--strength", share, "--param-key", "params") for share in ("0", "0.5", "1")],
    ],
)
def test_wrong_strength(wrong, workdir, capsys):
    cv2.imwrite("lq.png", _lq())
    assert main(["upscale", "lq.png", *wrong]) == 2
    assert ("has no weights under 'params'" if "--param-key" in wrong else "--strength: ") in capsys.readouterr().err
    assert not Path("upscaled").exists()


def test_sizes_and_sources():
    files = [path for path in SHIPPED.iterdir() if path.suffix == ".safetensors"]
    assert sorted(path.stem for path in files) == sorted(NAMES)
    assert sum(path.stat().st_size for path in files) <= 12e6
    for name in NAMES:
        rows = list(csv.DictReader((SHIPPED / f"{name}-photos.csv").open(encoding="utf-8")))
        assert len(rows) == 313
        assert all(row["licence"] and row["source"] for row in rows)
