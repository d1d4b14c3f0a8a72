import numpy as np
import pytest
import skimage.data
import torch

from gramgan_plugin.functional.gram import gram_vectors
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.moments import contrasts, gram_rows, moments


def some_patches(size: int, channels: int = 3) -> np.ndarray:
    photo = skimage.data.chelsea()[..., :channels]
    rng = np.random.default_rng(size)
    places = rng.integers(0, 250, (60, 2))
    return np.stack([photo[y : y + size, x : x + size] for y, x in places])


class TestGramRows:
    @pytest.mark.parametrize("size", [2, 4, 7, 16])
    @pytest.mark.parametrize(("normalize", "center"), [(True, False), (True, True), (False, False), (False, True)])
    def test_feature(self, size: int, normalize: bool, center: bool) -> None:
        """Against matrix products in float64, and against what the loss computes."""
        patches = some_patches(size)
        definition = Definition(size, normalize=normalize, center=center)
        rows = gram_rows(moments(patches), definition)
        assert rows.dtype == np.float32
        assert rows.shape == (60, 6)
        for patch, row in zip(patches, rows, strict=True):
            values = patch.reshape(-1, 3).astype(np.float64) / 255
            if center:
                values = values - values.mean(axis=0)
            gram = values.T @ values / (len(values) if normalize else 1)
            expected = gram[np.triu_indices(3)] * np.sqrt([1, 2, 2, 1, 2, 1])
            np.testing.assert_allclose(row, expected, rtol=2e-7, atol=1e-12 * size * size)
        images = torch.from_numpy(patches).permute(0, 3, 1, 2).float() / 255
        theirs = gram_vectors(images, size, normalize, center)[:, 0].numpy()
        np.testing.assert_allclose(rows, theirs, rtol=1e-5, atol=1e-7 * (1 if normalize else size**2))

    def test_feature_rounded_once(self) -> None:
        """The float32 nearest to the exact value, so the same on every machine."""
        patches = some_patches(4)
        exact = np.einsum("nli,nli->ni", *[patches.reshape(60, 16, 3).astype(np.int64)] * 2) / 16 / 255**2
        own = gram_rows(moments(patches), Definition(4))[:, [0, 3, 5]]
        assert (own == exact.astype(np.float32)).all()

    @pytest.mark.parametrize("channels", [1, 2])
    def test_cardinality(self, channels: int) -> None:
        rows = gram_rows(moments(some_patches(4, channels)), Definition(4, channels))
        assert rows.shape == (60, channels * (channels + 1) // 2)

    def test_feature_extremes(self) -> None:
        """No sum overflows: white patches of 128 pixels."""
        white = np.full((1, 128, 128, 3), 255, np.uint8)
        found = moments(white)
        np.testing.assert_allclose(gram_rows(found, Definition(128))[0], np.sqrt([1, 2, 2, 1, 2, 1]), rtol=1e-7)
        assert gram_rows(found, Definition(128, center=True)).tolist() == [[0.0] * 6]


class TestContrasts:
    def test_feature(self) -> None:
        patches = some_patches(4)
        found = moments(patches)
        ours = contrasts(found.pixels, found.sums, found.products[:, [0, 3, 5]])
        expected = np.sqrt((patches / 255).reshape(60, 16, 3).var(axis=1).mean(axis=1))
        np.testing.assert_allclose(ours, expected, rtol=1e-9)
