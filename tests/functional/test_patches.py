import numpy as np
import pytest
import torch

from gramgan_plugin.functional import extract_patches, patch_centres, patch_vectors


def loop_patches(image: np.ndarray, p: int, stride: int | None = None) -> list[np.ndarray]:
    """Patches of one (C, H, W) image as (p * p, C), written without reshaping."""
    channels, height, width = image.shape
    patches = []
    for top in range(0, height - p + 1, stride or p):
        for left in range(0, width - p + 1, stride or p):
            pixels = [image[:, top + y, left + x] for y in range(p) for x in range(p)]
            patches.append(np.stack(pixels).reshape(p * p, channels))
    return patches


class TestExtractPatches:
    def test_smoke(self):
        assert extract_patches(torch.rand(1, 3, 8, 8), 4).shape == (1, 4, 16, 3)

    @pytest.mark.parametrize(
        ("shape", "p", "expected"),
        [
            ((2, 3, 192, 192), 4, (2, 2304, 16, 3)),
            ((1, 1, 9, 14), 4, (1, 6, 16, 1)),
            ((2, 4, 6, 9), 3, (2, 6, 9, 4)),
            ((1, 3, 3, 8), 4, (1, 0, 16, 3)),
        ],
    )
    def test_cardinality(self, shape, p, expected):
        assert extract_patches(torch.zeros(shape), p).shape == expected

    @pytest.mark.parametrize("channels_last", [False, True])
    @pytest.mark.parametrize("stride", [None, 1, 2, 3, 4])
    def test_feature(self, stride, channels_last):
        image = torch.rand(2, 3, 10, 13, generator=torch.Generator().manual_seed(0))
        expected = np.stack([np.stack(loop_patches(sample.numpy(), 3, stride)) for sample in image])
        if channels_last:
            image = image.to(memory_format=torch.channels_last)
        assert np.array_equal(extract_patches(image, 3, stride).numpy(), expected)
        assert np.array_equal(patch_vectors(image, 3, stride).numpy(), expected.reshape(2, -1, 27))

    @pytest.mark.parametrize("stride", [None, 2])
    def test_gradcheck(self, stride):
        image = torch.rand(1, 2, 7, 7, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda x: patch_vectors(x, 3, stride), image)

    def test_exception(self):
        with pytest.raises(ValueError, match=r"expected \(N, C, H, W\)"):
            extract_patches(torch.zeros(3, 8, 8), 4)
        with pytest.raises(ValueError, match="patch_size must be at least 1"):
            extract_patches(torch.zeros(1, 3, 8, 8), 0)
        with pytest.raises(ValueError, match="stride must be at least 1"):
            extract_patches(torch.zeros(1, 3, 8, 8), 4, 0)

    def test_dtype(self):
        assert extract_patches(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16), 4).dtype == torch.bfloat16
        assert patch_vectors(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16), 4).dtype == torch.float32


class TestPatchCentres:
    def test_feature(self):
        # GT itself: the middle of each patch.
        assert patch_centres(8, 12, 4, 8, 12).tolist() == [[2, 2], [2, 6], [2, 10], [6, 2], [6, 6], [6, 10]]
        # Half as large: a patch covers 8 pixels of GT.
        assert patch_centres(8, 8, 4, 16, 16).tolist() == [[4, 4], [4, 12], [12, 4], [12, 12]]
        # A remainder is no patch, but counts for the ratio of the sides.
        assert patch_centres(5, 4, 4, 10, 8).tolist() == [[4, 4]]
        # Overlapping ones.
        assert patch_centres(6, 4, 4, 6, 4, stride=1).tolist() == [[2, 2], [3, 2], [4, 2]]
        assert patch_centres(6, 4, 4, 12, 8, stride=2).tolist() == [[4, 4], [8, 4]]
