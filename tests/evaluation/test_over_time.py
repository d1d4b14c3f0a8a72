import basicsr  # noqa: F401
import cv2
import numpy as np
import pytest
import skimage.data
import torch
from basicsr.metrics import calculate_psnr
from hypothesis import given
from hypothesis import strategies as st

from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation.measure import Measured, to_uint8
from gramgan_plugin.evaluation.over_time import Crops, cut_crops, thinned, update_over_time
from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.utils.pictures import GAP, LABEL_HEIGHT

PSNR = {"p": {"type": "calculate_psnr", "crop_border": 4}}


def measured(height: int = 200, width: int = 240, shift: int = 0, **changes) -> Measured:
    gt = np.full((height, width, 3), 128, np.uint8)
    # Its edges count on both sides, so that one window of 160 pixels has all of the detail.
    detail = skimage.data.chelsea()[100 : 100 + min(158, height - 2), 100 : 100 + min(158, width - 2)]
    gt[height - len(detail) - 1 : -1, width - detail.shape[1] - 1 : -1] = detail
    tensor = torch.from_numpy(gt[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255
    lq = matlab_bicubic(tensor, down=4)
    sr = np.clip(gt.astype(int) + shift, 0, 255).astype(np.uint8)
    values = {"p": 30.0 + shift}
    return Measured(**({"name": "cat", "lq": lq, "image": sr, "truth": gt, "values": values} | changes))


class TestCutCrops:
    def test_where_gt_has_detail(self):
        one = measured(shift=5)
        crops = cut_crops(one, PSNR)
        window = slice(40, 200), slice(80, 240)
        assert np.array_equal(crops.sr, one.image[window])
        assert np.array_equal(crops.after["GT"], one.truth[window])
        bicubic = to_uint8(matlab_bicubic(one.lq, up=4))
        label = f"bicubic, {calculate_psnr(bicubic, one.truth, 4):.2f} dB"
        assert list(crops.before) == [label]
        assert np.array_equal(crops.before[label], bicubic[window])
        assert crops.psnr == 35.0

    def test_sr_does_not_move_it(self):
        noise = np.random.default_rng(0).integers(0, 255, (200, 240, 3)).astype(np.uint8)
        noise[40:, 80:] = 0
        assert np.array_equal(cut_crops(measured(image=noise), PSNR).after["GT"], measured().truth[40:, 80:])

    def test_without_psnr_gt_or_lq(self):
        assert cut_crops(measured(), {}).psnr is None
        assert list(cut_crops(measured(), {}).before) == ["bicubic"]
        without_gt = cut_crops(measured(truth=None, values={}), PSNR)
        assert (list(without_gt.before), without_gt.after, without_gt.psnr) == (["bicubic"], {}, None)
        assert cut_crops(measured(lq=None), PSNR).before == {}
        assert cut_crops(measured(lq=None, truth=None, values={}), PSNR) is None
        odd = torch.rand(1, 3, 49, 60)
        assert cut_crops(measured(lq=odd), PSNR).before == {}, "200 is not a multiple of 49"

    def test_gt_of_another_size_is_not_shown(self):
        assert cut_crops(measured(truth=np.zeros((8, 8, 3), np.uint8)), {}).after == {}

    def test_gray_and_small(self):
        one = measured(20, 12)
        gray = Measured("g", one.lq[:, :1], one.image[..., :1], one.truth[..., :1], {})
        crops = cut_crops(gray, {})
        assert crops.sr.shape == crops.after["GT"].shape == crops.before["bicubic"].shape == (20, 12, 3)


def solid(level: int, size: int = 100) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


def crops_of(level: int, psnr: float | None = None, size: int = 100) -> Crops:
    return Crops("cat", solid(level, size), psnr, {"bicubic": solid(0, size)}, {"GT": solid(255, size)})


def panels(path, size: int = 100, zoom: int = 2) -> list[int]:
    """The grey level in the middle of each panel, row by row."""
    picture = cv2.imread(str(path))
    height, width = LABEL_HEIGHT + size * zoom, size * zoom
    rows, columns = (picture.shape[0] + GAP) // (height + GAP), (picture.shape[1] + GAP) // (width + GAP)
    assert picture.shape == (rows * (height + GAP) - GAP, columns * (width + GAP) - GAP, 3)
    middles = [
        picture[row * (height + GAP) + LABEL_HEIGHT + width // 2, column * (width + GAP) + width // 2, 0]
        for row in range(rows)
        for column in range(columns)
    ]
    return [int(level) for level in middles]


class TestUpdate:
    def test_bicubic_then_sr_then_gt(self, tmp_path):
        for iteration in (100, 200):
            update_over_time(tmp_path, iteration, crops_of(iteration // 2, 30.0))
        assert panels(tmp_path / "cat.png") == [0, 50, 100, 255]
        assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
            "100.png",
            "200.png",
            "cat.png",
            "psnr.json",
        ]

    def test_it_does_not_grow(self, tmp_path):
        for iteration in range(1, 31):
            update_over_time(tmp_path, iteration, crops_of(iteration))
        shown = panels(tmp_path / "cat.png")
        assert (len(shown), shown[0], shown[1], shown[-2], shown[-1]) == (8, 0, 1, 30, 255)
        assert sorted(int(path.stem) for path in (tmp_path / "cat").glob("*.png")) == shown[1:-1]
        assert max(np.diff(shown[1:-1])) <= 12

    def test_after_a_resume_the_future_is_gone(self, tmp_path):
        for iteration in (10, 20, 30):
            update_over_time(tmp_path, iteration, crops_of(iteration))
        update_over_time(tmp_path, 20, crops_of(99))
        assert panels(tmp_path / "cat.png") == [0, 10, 99, 255]
        assert not (tmp_path / "cat/30.png").exists()

    def test_labels_keep_their_psnr(self, tmp_path, monkeypatch):
        texts = []
        put = cv2.putText
        monkeypatch.setattr(cv2, "putText", lambda image, text, *rest: texts.append(text) or put(image, text, *rest))
        update_over_time(tmp_path, 10, crops_of(10, 30.126))
        update_over_time(tmp_path, 20, crops_of(20))
        assert texts[3:] == ["bicubic", "iter 10, 30.13 dB", "iter 20", "GT"]

    @pytest.mark.parametrize("damage", ["no picture", "another size", "no json"])
    def test_damaged_crops_are_passed_over(self, tmp_path, damage):
        update_over_time(tmp_path, 10, crops_of(10, 1.0))
        if damage == "no picture":
            (tmp_path / "cat/10.png").write_bytes(b"x")
        elif damage == "another size":
            cv2.imwrite(str(tmp_path / "cat/10.png"), solid(0, 20))
        else:
            (tmp_path / "cat/psnr.json").write_text("[")
        update_over_time(tmp_path, 20, crops_of(20))
        assert panels(tmp_path / "cat.png")[-2:] == [20, 255]
        assert (10 in panels(tmp_path / "cat.png")) == (damage == "no json")

    def test_small_crops_are_enlarged_for_their_labels(self, tmp_path):
        update_over_time(tmp_path, 1, crops_of(7, size=16))
        assert panels(tmp_path / "cat.png", 16, 13) == [0, 7, 255]

    def test_exception(self, tmp_path):
        (tmp_path / "cat").write_text("")
        with pytest.raises(UserError, match="cat"):
            update_over_time(tmp_path, 1, crops_of(1))


class TestThinned:
    @given(st.lists(st.integers(1, 1000), min_size=1, max_size=60, unique=True), st.integers(2, 8))
    def test_first_and_newest_stay(self, iterations, most):
        kept: list[int] = []
        for iteration in sorted(iterations):
            kept = thinned([*kept, iteration], most)
        assert kept == sorted(kept)
        assert (kept[0], kept[-1]) == (min(iterations), max(iterations))
        assert len(kept) == min(most, len(iterations))

    @pytest.mark.parametrize("count", [20, 37, 100])
    def test_evenly(self, count):
        kept: list[int] = []
        for iteration in range(count):
            kept = thinned([*kept, iteration], 6)
        assert max(np.diff(kept)) < 2.5 * count / 5
