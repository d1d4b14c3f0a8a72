import itertools

import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gramgan_plugin.functional import extract_patches, gram_difference, gram_matrix, gram_vectors


def random_image(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def loop_vectors(image: np.ndarray, p: int, stride: int, normalize: bool, center: bool) -> np.ndarray:
    """The vectors of (N, C, H, W), a patch at a time."""
    rows, columns = np.triu_indices(image.shape[1])
    scale = np.where(rows == columns, 1, np.sqrt(2))
    vectors = [[] for _ in image]
    for top in range(0, image.shape[2] - p + 1, stride):
        for left in range(0, image.shape[3] - p + 1, stride):
            for n, sample in enumerate(image):
                pixels = sample[:, top : top + p, left : left + p].reshape(len(sample), -1)
                if center:
                    pixels = pixels - pixels.mean(axis=1, keepdims=True)
                gram = pixels @ pixels.T / (p * p if normalize else 1)
                vectors[n].append(gram[rows, columns] * scale)
    return np.array(vectors)


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
    @pytest.mark.parametrize(("patch_size", "stride"), [(3, None), (4, None), (4, 1), (3, 2), (1, 1), (2, 3)])
    def test_feature(self, channels, normalize, center, patch_size, stride):
        image = random_image(2, channels, 13, 9)  # with a remainder
        got = gram_vectors(image, patch_size, normalize, center, stride)
        expected = loop_vectors(image.numpy(), patch_size, stride or patch_size, normalize, center)
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-11, atol=1e-14)

    @settings(max_examples=60, deadline=None)
    @given(
        seed=st.integers(0, 2**31),
        channels=st.integers(1, 12),
        patch_size=st.integers(1, 5),
        overlap=st.integers(0, 4),
        height=st.integers(5, 14),
        width=st.integers(5, 14),
        normalize=st.booleans(),
        center=st.booleans(),
        channels_last=st.booleans(),
    )
    def test_value_and_gradient(
        self, seed, channels, patch_size, overlap, height, width, normalize, center, channels_last
    ):
        """Against plain operations that autograd differentiates."""
        stride = max(1, patch_size - overlap)
        image = random_image(2, channels, height, width, seed=seed)
        if channels_last:
            image = image.to(memory_format=torch.channels_last)
        image.requires_grad_()
        got = gram_vectors(image, patch_size, normalize, center, stride)
        patches = extract_patches(image, patch_size, stride)
        rows, columns = torch.triu_indices(channels, channels)
        scale = (1.0 + (rows != columns)).double().sqrt()
        expected = gram_matrix(patches, normalize, center)[:, :, rows, columns] * scale
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        weight = random_image(*got.shape, seed=seed + 1) - 0.5
        gradients = [torch.autograd.grad((v * weight).sum(), image)[0] for v in (got, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)

    @pytest.mark.parametrize("patch_size", [2, 5, 8, 16])
    @pytest.mark.parametrize("center", [False, True])
    def test_patch_sizes_in_float32(self, patch_size, center):
        image = torch.from_numpy(skimage.data.chelsea()[:96, 200:296].copy()).permute(2, 0, 1)[None].float() / 255
        for stride in (patch_size, max(1, patch_size // 2)):
            got = gram_vectors(image, patch_size, center=center, stride=stride)
            expected = loop_vectors(image.double().numpy(), patch_size, stride, True, center)
            np.testing.assert_allclose(got.numpy(), expected, rtol=2e-6, atol=1e-8 if center else 0)

    @pytest.mark.parametrize("channels", [3, 9])
    @pytest.mark.parametrize("center", [False, True])
    def test_equal_patches_have_equal_vectors(self, channels, center):
        """To the last bit, wherever they lie: what is equal must tie."""
        patch = random_image(1, channels, 4, 4, dtype=torch.float32)
        vectors = gram_vectors(patch.repeat(2, 1, 5, 13), 4, center=center)
        assert (vectors == vectors[:1, :1]).all()

    @pytest.mark.parametrize("channels", [3, 9])
    def test_second_derivative_is_refused(self, channels):
        image = random_image(1, channels, 8, 8).requires_grad_()
        (gradient,) = torch.autograd.grad(gram_vectors(image, 4).square().sum(), image, create_graph=True)
        with pytest.raises(RuntimeError, match="differentiate twice"):
            gradient.sum().backward()

    @pytest.mark.parametrize("stride", [4, 2])
    def test_gradient_is_the_same_each_time(self, stride):
        image = random_image(2, 3, 32, 32, dtype=torch.float32).requires_grad_()
        weight = random_image(*gram_vectors(image, 4, stride=stride).shape, dtype=torch.float32)
        first, second = (
            torch.autograd.grad((gram_vectors(image, 4, stride=stride) * weight).sum(), image)[0] for _ in range(2)
        )
        assert torch.equal(first, second)

    def test_no_patch(self):
        image = torch.zeros(2, 3, 3, 9).requires_grad_()
        assert gram_vectors(image, 4).shape == (2, 0, 6)

    @pytest.mark.parametrize(("arguments", "message"), [((0,), "patch_size"), ((4, True, False, 0), "stride")])
    def test_exception(self, arguments, message):
        with pytest.raises(ValueError, match=f"{message} must be at least 1"):
            gram_vectors(torch.zeros(1, 3, 8, 8), *arguments)

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

    @pytest.mark.parametrize("stride", [3, 1])
    def test_no_variance_is_negative(self, stride):
        image = torch.linspace(0, 1, 64, dtype=torch.float64)[:, None, None, None].expand(-1, 1, 8, 8)
        variance = gram_vectors(image, 3, center=True, stride=stride)
        assert 0 <= variance.min() <= variance.max() < 1e-15

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
        for channels in (2, 9):
            image = random_image(1, channels, 4, 8).requires_grad_()
            for stride, center in itertools.product((4, 2), (False, True)):
                assert torch.autograd.gradcheck(
                    lambda x, center=center, stride=stride: gram_vectors(x, 4, True, center, stride), image
                )


class TestGramDifference:
    @pytest.mark.parametrize("channels", [1, 3, 4])
    @pytest.mark.parametrize("criterion", ["l1", "mse"])
    def test_feature(self, channels, criterion):
        a, b = random_image(2, channels, 8, 8), random_image(2, channels, 8, 8, seed=1)
        full = (gram_matrix(extract_patches(a, 4)) - gram_matrix(extract_patches(b, 4))).numpy()
        expected = np.mean(np.abs(full)) if criterion == "l1" else np.mean(full**2)
        got = gram_difference(gram_vectors(a, 4), gram_vectors(b, 4), channels, criterion)
        np.testing.assert_allclose(float(got), expected, rtol=1e-12)
