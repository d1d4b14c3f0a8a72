"""Images of 16 bits, from files to the model's tensors."""

import random
from pathlib import Path
from typing import Any

import basicsr  # noqa: F401
import cv2
import numpy as np
import pytest
import torch

from gramgan_plugin.config import check_options
from gramgan_plugin.data.batch import to_model_batch
from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset
from gramgan_plugin.errors import OptionError, UserError


@pytest.fixture
def pair(tmp_path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A photo-like image of 16 bits and its LQ, as PNG in folders; BGR."""
    draw = np.random.default_rng(0)
    images = [draw.integers(0, 65536, (side, side, 3), np.uint16) for side in (64, 16)]
    for name, image in zip(("gt", "lq"), images, strict=True):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), image)
    return images[0], images[1]


def options(folder: Path, **more: Any) -> dict[str, Any]:
    roots = {"dataroot_gt": str(folder / "gt"), "dataroot_lq": str(folder / "lq")}
    plain = {"use_hflip": False, "use_rot": False}
    return {"phase": "train", "scale": 4, "gt_size": 64, "bit_depth": 16, **roots, **plain} | more


def test_all_bits_reach_the_model(pair, tmp_path: Path) -> None:
    item = PairedSRDataset(options(tmp_path))[0]
    batch = to_model_batch({key: item[key][None] for key in ("gt", "lq")}, torch.device("cpu"))
    for key, image in zip(("gt", "lq"), pair, strict=True):
        expected = torch.from_numpy(image[..., ::-1].astype(np.float64).transpose(2, 0, 1).copy()) / 65535
        assert batch[key].dtype == torch.float32
        assert float((batch[key][0].double() - expected).abs().max()) < 2e-7  # a level of 16 bits is 1.5e-5


def test_crops_and_turns_are_those_of_8_bits(pair, tmp_path: Path) -> None:
    items = []
    for depth in (8, 16):
        random.seed(5)
        changed = {"bit_depth": depth, "gt_size": 32, "use_hflip": True, "use_rot": True}
        items.append(PairedSRDataset(options(tmp_path, **changed))[0])
    for key in ("gt", "lq"):
        assert float((items[0][key] / 255 - items[1][key]).abs().max()) <= 0.51 / 255


def test_8_bit_files_are_read_as_they_are(tmp_path: Path) -> None:
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    for name, one in (("gt", image), ("lq", image[::4, ::4])):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "a.png"), one)
    item = PairedSRDataset(options(tmp_path))[0]
    torch.testing.assert_close(item["gt"], torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy()) / 255)


def test_luma(pair, tmp_path: Path) -> None:
    item = PairedSRDataset(options(tmp_path, color="y"))[0]
    b, g, r = (pair[0][..., channel] / 65535 for channel in range(3))
    expected = (16 + 65.481 * r + 128.553 * g + 24.966 * b) / 255
    np.testing.assert_allclose(item["gt"][0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"bit_depth": 12}, "expected 8 or 16"),
        ({"phase": "val"}, "16 only in training"),
        ({"dataroot_lq": None, "lq": "bicubic"}, "give 16-bit LQ as dataroot_lq"),
        ({"cache": True}, "set cache: false"),
    ],
)
def test_what_it_does_not_go_with(pair, tmp_path: Path, change: dict[str, Any], what: str) -> None:
    with pytest.raises(OptionError) as caught:
        PairedSRDataset(options(tmp_path) | change)
    assert str(caught.value).startswith(f"datasets.{change.get('phase', 'train')}.bit_depth: ")
    assert what in str(caught.value)


def test_a_damaged_file(pair, tmp_path: Path) -> None:
    path = tmp_path / "lq" / "a.png"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"a\.png cannot be decoded"):
        PairedSRDataset(options(tmp_path))[0]


@pytest.mark.parametrize(
    ("block", "key", "value"), [("train", "cache", True), ("val", "bit_depth", 16), ("train", "bit_depth", 12)]
)
def test_check_knows_it(tiny_options: dict[str, Any], block: str, key: str, value: Any) -> None:
    if block == "train":
        tiny_options["datasets"]["train"]["bit_depth"] = 16
    check_options(tiny_options)
    tiny_options["datasets"][block][key] = value
    with pytest.raises(OptionError) as caught:
        check_options(tiny_options)
    assert str(caught.value).startswith(f"datasets.{block}.bit_depth: ")
