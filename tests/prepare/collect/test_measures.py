import io
from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest
from PIL import Image as PillowImage

from gramgan_plugin.prepare.collect.criteria import Criteria
from gramgan_plugin.prepare.collect.measures import (
    MOST_PIXELS,
    blockiness,
    jpeg_quality,
    sharpness,
    spectral_drop,
    strips,
)

LIMITS = Criteria()
Photos = Sequence[np.ndarray]
Change = Callable[[np.ndarray], np.ndarray]


def enlarged(factor: float, how: int = cv2.INTER_CUBIC) -> Change:
    return lambda image: cv2.resize(image, None, fx=factor, fy=factor, interpolation=how)


def compressed(quality: int) -> Change:
    def change(image: np.ndarray) -> np.ndarray:
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)

    return change


def blurred(sigma: float) -> Change:
    return lambda image: cv2.GaussianBlur(image, (0, 0), sigma)


def shallow(image: np.ndarray) -> np.ndarray:
    """Sharp in the middle ninth only."""
    soft, (height, width) = blurred(4)(image), image.shape[:2]
    rows, columns = slice(height // 3, 2 * height // 3), slice(width // 3, 2 * width // 3)
    soft[rows, columns] = image[rows, columns]
    return soft


def from_sensor(image: np.ndarray) -> np.ndarray:
    """Through a Bayer mosaic, as a camera makes it."""
    image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    mosaic = image[..., 1].copy()
    mosaic[0::2, 0::2], mosaic[1::2, 1::2] = image[0::2, 0::2, 2], image[1::2, 1::2, 0]
    return cv2.cvtColor(mosaic, cv2.COLOR_BayerBG2BGR_EA)


def share(photos: Photos, change: Change, dropped: Callable[[np.ndarray], bool]) -> float:
    return float(np.mean([dropped(change(photo)) for photo in photos]))


def is_blurred(image: np.ndarray) -> bool:
    return sharpness(strips(image)) < LIMITS.min_sharpness


def is_upscaled(image: np.ndarray) -> bool:
    return spectral_drop(strips(image)) > LIMITS.max_spectral_drop


def is_blocky(image: np.ndarray) -> bool:
    return blockiness(strips(image)) > LIMITS.max_blockiness


GOOD = {
    "as it is": lambda image: image,
    "shallow": shallow,
    "from a sensor": from_sensor,
    "quality 85": compressed(85),
    "halved": enlarged(0.5, cv2.INTER_AREA),
    "darker": lambda image: image // 3,
    "noisy": lambda image: cv2.add(image, np.random.default_rng(0).integers(0, 12, image.shape, np.uint8)),
}


class TestGoodPhotos:
    @pytest.mark.parametrize("kind", GOOD)
    def test_feature_few_are_dropped(self, good_photos: Photos, kind: str) -> None:
        dropped = share(good_photos, GOOD[kind], lambda i: is_blurred(i) or is_upscaled(i) or is_blocky(i))
        assert dropped <= 0.025  # at most one of forty


class TestSharpness:
    @pytest.mark.parametrize(("sigma", "least"), [(1.5, 0.9), (2, 0.95), (3, 0.95)])
    def test_feature_blur_is_found(self, good_photos: Photos, sigma: float, least: float) -> None:
        assert share(good_photos, blurred(sigma), is_blurred) >= least

    def test_feature_noise_does_not_hide_blur(self, good_photos: Photos) -> None:
        noise = np.random.default_rng(1).normal(0, 3, (500, 500, 3))

        def noisy(image: np.ndarray) -> np.ndarray:
            soft = blurred(2)(image)
            return np.clip(soft + noise[: soft.shape[0], : soft.shape[1]], 0, 255).round().astype(np.uint8)

        assert share(good_photos, noisy, is_blurred) >= 0.95

    def test_feature_motion_counts_by_the_worse_direction(self, photos: dict[str, np.ndarray]) -> None:
        kernel = np.zeros((9, 9), np.float32)
        kernel[4] = 1 / 9
        assert sharpness(strips(photos["coffee"])) > 0.9
        for moved in (kernel, kernel.T):
            assert sharpness(strips(cv2.filter2D(photos["coffee"], -1, moved))) < 0.5

    def test_feature_flat(self) -> None:
        assert sharpness(strips(np.full((200, 200, 3), 90, np.uint8))) == 0
        assert sharpness(strips(np.zeros((20, 20, 3), np.uint8))) == 0


class TestSpectralDrop:
    @pytest.mark.parametrize(
        ("factor", "how", "least"),
        [
            (2, cv2.INTER_CUBIC, 0.97),
            (1.5, cv2.INTER_CUBIC, 0.95),
            (2, cv2.INTER_LINEAR, 0.9),
        ],
    )
    def test_feature_enlarged_is_found(self, good_photos: Photos, factor: float, how: int, least: float) -> None:
        assert share(good_photos, enlarged(factor, how), is_upscaled) >= least

    def test_feature_lanczos_and_jpeg(self, good_photos: Photos) -> None:
        def lanczos(image: np.ndarray) -> np.ndarray:
            size = (image.shape[1] * 3 // 2, image.shape[0] * 3 // 2)
            return np.asarray(PillowImage.fromarray(image).resize(size, PillowImage.Resampling.LANCZOS))

        assert share(good_photos, lanczos, is_upscaled) >= 0.95
        assert share(good_photos, lambda image: compressed(90)(enlarged(2)(image)), is_upscaled) >= 0.95

    def test_feature_known_spectrum(self) -> None:
        """White noise has no drop; with its high band weakened tenfold in amplitude it has one of two powers of ten."""
        noise = np.random.default_rng(0).normal(0, 30, (512, 512))
        rows, columns = np.abs(np.fft.fftfreq(512))[:, None] * 2, np.abs(np.fft.fftfreq(512))[None] * 2
        weaker = np.where(np.maximum(rows, columns) > 0.55, 0.1, 1.0)
        weakened = np.fft.ifft2(np.fft.fft2(noise) * weaker).real
        assert spectral_drop([noise.astype(np.float32)]) == pytest.approx(0, abs=0.03)
        # Each row of the weakened picture holds all vertical frequencies, half of them weakened anyway.
        assert spectral_drop([weakened.astype(np.float32)]) == pytest.approx(1.75, abs=0.15)

    def test_cardinality_small(self) -> None:
        assert spectral_drop(strips(np.zeros((63, 500, 3), np.uint8))) == 0


class TestBlockiness:
    @pytest.mark.parametrize(("quality", "least"), [(30, 0.8), (20, 0.9), (10, 0.9)])
    def test_feature_reencoded_is_found(self, good_photos: Photos, quality: int, least: float) -> None:
        assert share(good_photos, compressed(quality), is_blocky) >= least

    def test_feature_grid_may_begin_anywhere(self, photos: dict[str, np.ndarray]) -> None:
        bad = compressed(20)(photos["astronaut"])
        whole, cut = blockiness(strips(bad)), blockiness(strips(bad[3:, 5:]))
        assert cut == pytest.approx(whole, rel=0.05)
        assert whole > 5 * blockiness(strips(photos["astronaut"]))

    def test_feature_known_grid(self) -> None:
        flat = (np.arange(64) // 8 % 2 * 3).astype(np.float32)[None].repeat(64, 0)  # steps of 3 every 8 columns
        assert blockiness([flat]) == pytest.approx(3 / 2)  # along rows 3, along columns none

    def test_feature_quality_75_passes(self, good_photos: Photos) -> None:
        assert share(good_photos, compressed(75), is_blocky) <= 0.05


class TestJpegQuality:
    @pytest.mark.parametrize("quality", [1, 10, 49, 50, 51, 75, 90, 99])
    def test_feature_two_encoders(self, photos: dict[str, np.ndarray], quality: int) -> None:
        image = PillowImage.fromarray(photos["chelsea"][..., ::-1])
        for write in (
            lambda buffer: image.save(buffer, "JPEG", quality=quality),
            lambda buffer: buffer.write(
                cv2.imencode(".jpg", photos["chelsea"], [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            ),
        ):
            buffer = io.BytesIO()
            write(buffer)
            tables = PillowImage.open(buffer).quantization  # type: ignore[attr-defined]
            assert jpeg_quality([tables[0]]) == quality

    def test_feature_order_does_not_matter(self) -> None:
        table = list(range(1, 65))
        assert jpeg_quality([table]) == jpeg_quality([table[::-1]])


class TestStrips:
    def test_feature_large_photos_are_sampled(self) -> None:
        rows = np.arange(8000, dtype=np.int64)[:, None, None] // 512 * 10
        large = np.broadcast_to(rows, (8000, 2500, 3)).astype(np.uint8)
        planes = strips(large)
        assert sum(plane.size for plane in planes) <= MOST_PIXELS
        levels = [int(plane[0, 0]) // 10 for plane in planes]
        assert levels[0] == 0
        assert levels[-1] >= 12  # of 15: they reach over the whole photo
        assert levels == sorted(set(levels))

    def test_feature_luma(self, photos: dict[str, np.ndarray]) -> None:
        plane = np.concatenate(strips(photos["rocket"]))
        luma = photos["rocket"].astype(float) @ (0.114, 0.587, 0.299)
        assert np.abs(plane - luma).max() <= 0.51
