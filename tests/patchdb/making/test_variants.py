import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from gramgan_plugin.functional.candidates import affine_warp, random_theta
from gramgan_plugin.patchdb.making import variants
from gramgan_plugin.patchdb.making.settings import Settings
from gramgan_plugin.patchdb.making.variants import variant_images

ROCKET = np.ascontiguousarray(skimage.data.rocket()[100:303, 200:405])
DIGEST = "0123456789abcdef" * 4


class TestVariantImages:
    def test_smoke(self) -> None:
        found = dict(variant_images(ROCKET, Settings(), DIGEST))
        assert sorted(found) == [0, 1, 2]
        assert [found[number].shape for number in range(3)] == [(203, 205, 3), (101, 102, 3), (203, 205, 3)]
        assert found[0] is ROCKET
        only = dict(variant_images(ROCKET, Settings(variants=("affine",)), DIGEST))
        assert list(only) == [2]
        assert (only[2] == found[2]).all()

    def test_feature_half(self) -> None:
        """Pillow's antialiased bicubic, to a level."""
        even = np.ascontiguousarray(ROCKET[:200, :204])
        half = dict(variant_images(even, Settings(variants=("down",)), DIGEST))[1].astype(int)
        theirs = np.asarray(Image.fromarray(even).resize((102, 100), Image.Resampling.BICUBIC)).astype(int)
        assert abs(half - theirs).max() <= 1

    def test_feature_affine(self) -> None:
        """Warped a little, by a matrix that depends on the photo and the seed alone."""
        warped = dict(variant_images(ROCKET, Settings(seed=5), DIGEST))[2]
        theta = random_theta(1, 1, 0.003, (5, 0x01234567, 0x89ABCDEF))
        image = torch.from_numpy(ROCKET).permute(2, 0, 1)[None] / 255
        expected = affine_warp(image, theta[:, 0])[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
        assert abs(warped - expected).max() <= 0.5 + 1e-3
        difference = abs(warped.astype(int) - ROCKET).mean()
        assert 0.2 < difference < 8
        others = [
            dict(variant_images(ROCKET, Settings(seed=6), DIGEST))[2],
            dict(variant_images(ROCKET, Settings(seed=5), DIGEST[::-1]))[2],
        ]
        assert all((other != warped).any() for other in others)

    @pytest.mark.parametrize("size", [(40, 130), (129, 127), (1, 70), (64, 64)])
    def test_feature_tiles(self, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]) -> None:
        """A large photo is computed in parts: the half stays the same but for what lies at their borders."""
        photo = np.ascontiguousarray(ROCKET[: size[0], : size[1]])
        whole = dict(variant_images(photo, Settings(), DIGEST))
        monkeypatch.setattr(variants, "TILE", 64)
        parts = dict(variant_images(photo, Settings(), DIGEST))
        assert parts[1].shape == whole[1].shape == (size[0] // 2, size[1] // 2, 3)
        if whole[1].size:
            assert (parts[1] != whole[1]).any(axis=2).mean() < 0.2
            assert abs(parts[1].astype(int) - whole[1]).mean() < 0.5
        assert abs(parts[2].astype(int) - photo).mean() < 20

    def test_feature_tiles_at_places(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(variants, "TILE", 64)
        tiles = list(variants._tiles(130, 63))
        assert [(rows.start, rows.stop) for rows, _ in tiles] == [(0, 42), (42, 86), (86, 130)]
        assert all((columns.start, columns.stop) == (0, 63) for _, columns in tiles)
