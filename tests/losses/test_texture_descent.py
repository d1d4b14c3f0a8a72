import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "texture_descent.py"


@pytest.fixture(scope="module")
def texture_descent():
    spec = importlib.util.spec_from_file_location("texture_descent", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestTextureDescent:
    def test_centred_restores_texture(self, texture_descent):
        row = texture_descent.descend(center=True, size=96)
        assert row["variance_start"] < 0.5
        assert row["variance_end"] >= 0.8
        assert row["loss_end"] < 0.2 * row["loss_start"]

    def test_uncentred_restores_little(self, texture_descent):
        row = texture_descent.descend(center=False, steps=100, size=96)
        assert row["variance_end"] < 0.6

    def test_measure(self, texture_descent):
        image = texture_descent.photo_crop("coffee", 8)
        expected = sum(
            image[0, c, y : y + 4, x : x + 4].double().numpy().var() for c in range(3) for y in (0, 4) for x in (0, 4)
        )
        assert texture_descent.in_patch_variance(image) == pytest.approx(expected / 12, rel=1e-4)
