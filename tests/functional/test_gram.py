import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gramgan_plugin.functional import extract_patches, gram_difference, gram_matrix, gram_vectors


def random_image(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class TestGramMatrix:
    def test_smoke(self):
        assert gram_matrix(torch.rand(1, 2, 16, 3)).shape == (1, 2, 3, 3)

    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("normalize", [False, True])
    @pytest.mark.parametrize("center", [False, True])
    def test_feature(self, channels, normalize, center):
        patches = random_image(2, 5, 16, channels)
        got = gram_matrix(patches, normalize, center)
        for n in range(2):
            for i in range(5):
                p = patches[n, i].numpy()
                if center:
                    p = p - p.mean(0)
                expected = p.T @ p / (16 if normalize else 1)
                np.testing.assert_allclose(got[n, i].numpy(), expected, rtol=1e-12, atol=1e-14)

    def test_centred_is_covariance(self):
        patches = random_image(1, 1, 16, 3)
        expected = np.cov(patches[0, 0].numpy().T, ddof=0)
        np.testing.assert_allclose(gram_matrix(patches, center=True)[0, 0].numpy(), expected, rtol=1e-12)

    def test_blind_to_pixel_order(self):
        patches = random_image(1, 1, 16, 3)
        order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(gram_matrix(patches[:, :, order]), gram_matrix(patches))

    def test_exception(self):
        with pytest.raises(ValueError, match=r"expected \(N, P, L, C\)"):
            gram_matrix(torch.zeros(2, 16, 3))

    def test_dtype(self):
        assert gram_matrix(torch.zeros(1, 1, 4, 3, dtype=torch.float16)).dtype == torch.float32
        assert gram_matrix(torch.zeros(1, 1, 4, 3, dtype=torch.float64)).dtype == torch.float64

    def test_gradcheck(self):
        patches = random_image(1, 2, 4, 3).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: gram_matrix(x, center=True), patches)


class TestGramVectors:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("normalize", [False, True])
    @pytest.mark.parametrize("center", [False, True])
    @pytest.mark.parametrize("patch_size", [3, 4])
    def test_feature(self, channels, normalize, center, patch_size):
        image = random_image(2, channels, 13, 9)  # with a remainder
        matrices = gram_matrix(extract_patches(image, patch_size), normalize, center)
        rows, columns = np.triu_indices(channels)
        expected = matrices[:, :, rows, columns].numpy() * np.where(rows == columns, 1, np.sqrt(2))
        got = gram_vectors(image, patch_size, normalize, center)
        assert got.shape == (2, (13 // patch_size) * (9 // patch_size), channels * (channels + 1) // 2)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-11, atol=1e-14)

    @settings(max_examples=25, deadline=None)
    @given(seed=st.integers(0, 2**31), channels=st.integers(1, 5))
    def test_distance_is_frobenius(self, seed, channels):
        a, b = random_image(1, channels, 8, 8, seed=seed), random_image(1, channels, 8, 8, seed=seed + 1)
        frobenius = (gram_matrix(extract_patches(a, 4)) - gram_matrix(extract_patches(b, 4))).norm(dim=(2, 3))
        distance = (gram_vectors(a, 4) - gram_vectors(b, 4)).norm(dim=2)
        torch.testing.assert_close(distance, frobenius)

    def test_centring_does_not_cancel(self):
        # A faint pattern on a bright ground: in float32, E[x^2] - E[x]^2 has no correct digit here.
        pattern = random_image(1, 1, 4, 4) * 1e-4
        image = (pattern + 0.9).float()
        exact = (image.double() - image.double().mean()).square().mean()
        got = gram_vectors(image, 4, center=True)
        np.testing.assert_allclose(float(got), float(exact), rtol=1e-2)

    def test_autocast(self):
        image = random_image(1, 3, 16, 16, dtype=torch.float32)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = gram_vectors(image, 4), gram_matrix(extract_patches(image, 4))
        assert torch.equal(inside[0], gram_vectors(image, 4))
        assert torch.equal(inside[1], gram_matrix(extract_patches(image, 4)))

    def test_dtype(self):
        image = random_image(1, 3, 8, 8)
        assert gram_vectors(image.bfloat16(), 4).dtype == torch.float32
        torch.testing.assert_close(gram_vectors(image.bfloat16(), 4), gram_vectors(image.bfloat16().float(), 4))
        assert gram_vectors(image, 4).dtype == torch.float64

    def test_gradcheck(self):
        image = random_image(1, 2, 4, 8).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: gram_vectors(x, 4, center=True), image)
        assert torch.autograd.gradcheck(lambda x: gram_vectors(x, 4), image)


class TestGramDifference:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("criterion", ["l1", "mse"])
    def test_feature(self, channels, criterion):
        a, b = random_image(2, channels, 8, 8), random_image(2, channels, 8, 8, seed=1)
        full = (gram_matrix(extract_patches(a, 4)) - gram_matrix(extract_patches(b, 4))).numpy()
        expected = np.mean(np.abs(full)) if criterion == "l1" else np.mean(full**2)
        got = gram_difference(gram_vectors(a, 4), gram_vectors(b, 4), channels, criterion)
        np.testing.assert_allclose(float(got), expected, rtol=1e-12)
