from collections.abc import Callable, Sequence

import cv2
import numpy as np
import pytest

from gramgan_plugin.prepare.collect.criteria import Criteria
from gramgan_plugin.prepare.collect.similarity import HashIndex, perceptual_hash

DISTANCE = Criteria().hash_distance
VERSIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "halved": lambda i: cv2.resize(i, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
    "enlarged": lambda i: cv2.resize(i, None, fx=1.7, fy=1.7, interpolation=cv2.INTER_CUBIC),
    "quality 30": lambda i: cv2.imdecode(cv2.imencode(".jpg", i, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], 1),
    "cut by 2 %": lambda i: i[i.shape[0] // 100 : -(i.shape[0] // 100), i.shape[1] // 100 : -(i.shape[1] // 100)],
    "brighter": lambda i: cv2.convertScaleAbs(i, alpha=1.1, beta=8),
    "gray": lambda i: cv2.cvtColor(cv2.cvtColor(i, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR),
}


def distance(one: int, other: int) -> int:
    return bin(one ^ other).count("1")


class TestPerceptualHash:
    @pytest.mark.parametrize("version", VERSIONS)
    def test_feature_versions_are_near(self, good_photos: Sequence[np.ndarray], version: str) -> None:
        near = [distance(perceptual_hash(i), perceptual_hash(VERSIONS[version](i))) <= DISTANCE for i in good_photos]
        assert np.mean(near) >= 0.975

    def test_feature_others_are_far(self, good_photos: Sequence[np.ndarray]) -> None:
        hashes = [perceptual_hash(image) for image in good_photos]
        least = min(distance(a, b) for k, a in enumerate(hashes) for b in hashes[:k])
        assert least > DISTANCE + 4

    def test_feature_by_hand(self, photos: dict[str, np.ndarray]) -> None:
        """The cosine transform by its matrix, in float64."""
        gray = cv2.cvtColor(photos["coffee"], cv2.COLOR_BGR2GRAY)
        small = cv2.resize(gray, (32, 32), interpolation=cv2.INTER_AREA).astype(float)
        n = np.arange(32)
        matrix = np.cos(np.pi * (2 * n[None] + 1) * n[:, None] / 64) * np.sqrt(np.where(n == 0, 1, 2) / 32)[:, None]
        low = (matrix @ small @ matrix.T)[:8, :8].ravel()
        bits = "".join(str(int(value)) for value in low > np.median(low))
        assert distance(perceptual_hash(photos["coffee"]), int(bits, 2)) == 0


class TestHashIndex:
    @pytest.mark.parametrize("most", [0, 3, 4, 6, 8])
    def test_feature_exact_as_trying_all(self, most: int) -> None:
        rng = np.random.default_rng(most)
        hashes = [int(value) for value in rng.integers(0, 2**63, 2000, np.uint64)]
        index = HashIndex(most)
        for number, value in enumerate(hashes):
            index.add(value, number)
        for start in hashes[:150]:
            value = start
            for bit in rng.choice(64, rng.integers(0, 14), replace=False):
                value ^= 1 << int(bit)
            nearest = min((distance(value, other), number) for number, other in enumerate(hashes))
            expected = (nearest[1], nearest[0]) if nearest[0] <= most else None
            assert index.nearest(value) == expected

    def test_feature_first_of_equals(self) -> None:
        index = HashIndex(2)
        index.add(5, 1)
        index.add(5, 2)
        assert index.nearest(4) == (1, 1)

    def test_exception(self) -> None:
        with pytest.raises(ValueError, match="distance 64"):
            HashIndex(64)
