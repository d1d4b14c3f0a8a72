"""Photos made smaller in many ways: what is aligned must not be called shifted, and shifts must be measured."""

from functools import cache

import cv2
import numpy as np
import pytest
import torch
from PIL import Image as PillowImage

from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.prepare.verify import alignment
from gramgan_plugin.prepare.verify.alignment import Measured, measure
from tests.prepare.verify.lmdbs import Image, Smaller, cuts, matlab, photos

SIZES = {2: 96, 3: 144, 4: 192, 8: 192}


def resized(image: Image, scale: int, how: int) -> Image:
    return cv2.resize(image, (image.shape[1] // scale, image.shape[0] // scale), interpolation=how)


def jpeg(image: Image, quality: int) -> Image:
    decoded = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)
    assert decoded is not None
    return decoded


def noisy(image: Image, sigma: float) -> Image:
    drawn = np.random.default_rng(5).normal(0, sigma, image.shape)
    return np.clip(image + drawn + 0.5, 0, 255).astype(np.uint8)


def slanted_blur(image: Image) -> Image:
    y, x = np.mgrid[-6:7, -6:7]
    kernel = np.exp(-((0.8 * x + 0.6 * y) ** 2) / 8 - (0.8 * y - 0.6 * x) ** 2 / 2)
    return cv2.filter2D(image, -1, kernel / kernel.sum())


def moved(image: Image, x: int, y: int) -> Image:
    """The content lies further right and down."""
    return np.roll(image, (y, x), (0, 1))


ALIGNED: dict[str, Smaller] = {
    "area": lambda i, s: resized(i, s, cv2.INTER_AREA),
    "bilinear": lambda i, s: resized(i, s, cv2.INTER_LINEAR),
    "bicubic without antialiasing": lambda i, s: resized(i, s, cv2.INTER_CUBIC),
    "lanczos": lambda i, s: np.array(PillowImage.fromarray(i).resize((i.shape[1] // s, i.shape[0] // s), 1)),
    "jpeg 80": lambda i, s: jpeg(matlab(i, s), 80),
    "jpeg 15": lambda i, s: jpeg(matlab(i, s), 15),
    "noise": lambda i, s: noisy(matlab(i, s), 15),
    "blurred": lambda i, s: cv2.GaussianBlur(matlab(i, s), (0, 0), 1.2),
    "darker": lambda i, s: (matlab(i, s) * 0.7 + 20).astype(np.uint8),
    "all of it": lambda i, s: jpeg(noisy(resized(slanted_blur(i), s, cv2.INTER_AREA), 8), 50),
}
SHIFTED: dict[str, tuple[Smaller, float, float]] = {  # GT pixels right and down, where they do not depend on the scale
    "one pixel right": (lambda i, s: matlab(moved(i, 1, 0), s), 1, 0),
    "one pixel up": (lambda i, s: matlab(moved(i, 0, -1), s), 0, -1),
    "half a pixel": (lambda i, s: matlab(((i.astype(int) + moved(i, 1, 0) + 1) // 2).astype(np.uint8), s), 0.5, 0),
    "one pixel, then jpeg": (lambda i, s: jpeg(matlab(moved(i, -1, 1), s), 60), -1, 1),
    "five and three": (lambda i, s: matlab(moved(i, 5, -3), s), 5, -3),
}


@cache
def measured(name: str, scale: int) -> list[Measured]:
    smaller = ALIGNED[name] if name in ALIGNED else SHIFTED[name][0]
    return [measure(gt, lq, scale) for gt, lq in list(cuts(SIZES[scale], scale, smaller).values())[::2]]


class TestMeasure:
    @pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
    def test_smoke_matlab(self, scale: int) -> None:
        for gt, lq in list(cuts(96, scale).values())[::3]:
            found = measure(gt, lq, scale)
            assert found.kind == "matlab"
            assert found.difference < 0.01

    @pytest.mark.parametrize("scale", [2, 3, 4, 8])
    @pytest.mark.parametrize("name", ALIGNED)
    def test_feature_aligned(self, name: str, scale: int) -> None:
        found = measured(name, scale)
        kinds = {pair.kind for pair in found}
        assert kinds <= {"fitted", "flat", "matlab"}
        fitted = [pair for pair in found if pair.kind == "fitted"]
        assert len(fitted) >= 0.7 * len(found)
        for pair in fitted:
            assert max(abs(pair.x), abs(pair.y)) < max(0.35, 8 * pair.error)

    @pytest.mark.parametrize("scale", [2, 3, 4, 8])
    @pytest.mark.parametrize("name", SHIFTED)
    def test_feature_shifted(self, name: str, scale: int) -> None:
        _, x, y = SHIFTED[name]
        found = [pair for pair in measured(name, scale) if pair.kind == "fitted"]
        assert len(found) >= 0.8 * len(measured(name, scale))
        for pair in found:
            assert abs(pair.x - x) < max(0.12, 8 * pair.error)
            assert abs(pair.y - y) < max(0.12, 8 * pair.error)
        close = 0.25 if "jpeg" in name else 0.1
        assert np.median([pair.x for pair in found]) == pytest.approx(x, abs=close)
        assert np.median([pair.y for pair in found]) == pytest.approx(y, abs=close)

    @pytest.mark.parametrize("scale", [2, 3, 4])
    @pytest.mark.parametrize("how", ["[::s]", "INTER_NEAREST"])
    def test_feature_subsampled(self, scale: int, how: str) -> None:
        """Pixel 0 of LQ shows GT at 0.5; it should show it at scale / 2."""
        smaller = {"[::s]": lambda i, s: i[::s, ::s], "INTER_NEAREST": lambda i, s: resized(i, s, cv2.INTER_NEAREST)}
        found = [measure(gt, lq, scale) for gt, lq in list(cuts(SIZES[scale], scale, smaller[how]).values())[::2]]
        fitted = [pair for pair in found if pair.kind == "fitted"]
        assert len(fitted) >= 0.8 * len(found)
        assert np.median([pair.x for pair in fitted]) == pytest.approx((scale - 1) / 2, abs=0.1)
        assert np.median([pair.y for pair in fitted]) == pytest.approx((scale - 1) / 2, abs=0.1)

    @pytest.mark.parametrize("scale", [2, 4, 8])
    def test_feature_another_photo(self, scale: int) -> None:
        pairs = list(cuts(SIZES[scale], scale).values())
        kinds = []
        for number, (gt, _) in enumerate(pairs):
            found = measure(gt, pairs[(number + 7) % len(pairs)][1], scale)
            assert found.kind in ("unlike", "other") or (found.apart >= 10 and not found.convincing) or found.x != 0
            kinds.append(found.kind)
        assert kinds.count("unlike") >= 0.8 * len(kinds)

    def test_feature_red_and_blue(self) -> None:
        for gt, lq in list(cuts(192, 4).values())[::3]:
            assert measure(gt, lq[..., ::-1], 4).kind == "channels"

    def test_feature_flat(self) -> None:
        gt = np.full((96, 96, 3), 90, np.uint8)
        assert measure(gt, np.full((24, 24, 3), 91, np.uint8), 4).kind == "matlab"
        assert measure(gt, np.full((24, 24, 3), 94, np.uint8), 4).kind == "flat"
        assert measure(gt, noisy(np.full((24, 24, 3), 90, np.uint8), 4), 4).kind == "flat"
        assert measure(gt, matlab(photos()[2][:96, 96:192], 4), 4).kind == "other"

    @pytest.mark.parametrize("side", [1, 4, 5, 12, 13, 16])
    def test_feature_small(self, side: int) -> None:
        gt = photos()[0][100 : 100 + 4 * side, 100 : 100 + 4 * side]
        assert measure(gt, matlab(gt, 4), 4).kind in (("matlab",) if side > 4 else ("flat",))
        assert measure(gt, jpeg(matlab(gt, 4), 50), 4).kind in ("flat", "fitted", "matlab")

    def test_feature_a_whole_photo(self) -> None:
        photo = np.ascontiguousarray(np.tile(photos()[1], (2, 3, 1)))  # (576, 1152), LQ larger than the window
        assert measure(photo, matlab(photo, 2), 2).kind == "matlab"
        found = measure(photo, matlab(moved(photo, 0, 1), 2), 2)
        assert (round(found.x, 1), round(found.y, 1)) == (0.0, 1.0)

    def test_feature_borders_do_not_count(self) -> None:
        """A sub-image's border pixels of LQ come from GT pixels that it does not show."""
        lq = matlab(photos()[0][:96, :96], 4)
        lq[:2] = lq[-2:] = 0
        lq[:, :2] = lq[:, -2:] = 255
        assert measure(photos()[0][:96, :96], lq, 4).kind == "matlab"
        lq[2] = 0
        assert measure(photos()[0][:96, :96], lq, 4).kind != "matlab"


class TestWeights:
    @pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
    def test_feature_is_matlab_bicubic(self, scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(alignment, "_gaussian", lambda length: torch.eye(length, dtype=torch.float64))
        luma = torch.from_numpy(photos()[0][:72, :96] @ np.array(alignment.LUMA))
        rows, columns = (alignment._weights(n // scale, n, scale, 0.0, 2) for n in luma.shape)
        expected = matlab_bicubic(luma[None, None], down=scale)[0, 0, 2:-2, 2:-2]
        assert (rows @ luma @ columns.T - expected).abs().max() < 1e-9

    def test_feature_a_shift_is_a_shift(self) -> None:
        still, shifted = (alignment._weights(24, 96, 4, shift, 3) for shift in (0.0, 2.0))
        signal = torch.arange(96, dtype=torch.float64)
        # The content lies 2 GT pixels further on: each LQ pixel shows what was 2 before it.
        assert ((shifted @ signal) - (still @ signal) + 2).abs().max() < 1e-9
