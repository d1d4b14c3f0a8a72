import numpy as np
import pytest
import scipy.stats
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

from gramgan_plugin.evaluation.texture_distance import patch_swd, texture_distance
from gramgan_plugin.functional.matlab_bicubic import lq_levels, matlab_bicubic

METRICS = [texture_distance, patch_swd]
PHOTOS = {"astronaut": skimage.data.astronaut(), "chelsea": skimage.data.chelsea(), "coffee": skimage.data.coffee()}


def photo(name: str) -> Tensor:
    return torch.from_numpy(PHOTOS[name][100:236, 100:260].copy()).permute(2, 0, 1)[None]


def noisy(image: Tensor, deviation: float) -> Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) * deviation
    return (image + noise).round().clamp(0, 255).byte()


def blurred(image: Tensor, width: int) -> Tensor:
    return F.avg_pool2d(F.pad(image.float(), [width // 2] * 4, mode="reflect"), width, 1).round().byte()


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a.double() - b.double()).square().mean().div(255**2).log10())


@pytest.mark.parametrize("metric", METRICS)
class TestBoth:
    @pytest.mark.parametrize("name", PHOTOS)
    def test_order(self, metric, name: str) -> None:
        """A shift counts little though PSNR falls; blur and noise count more, the stronger the more."""
        whole = photo(name)
        gt, shifted = whole[..., :128, :152], whole[..., 2:130, 2:154]
        shift = metric(shifted, gt).item()
        blur3, blur7 = (metric(blurred(gt, width), gt).item() for width in (3, 7))
        noise10, noise30 = (metric(noisy(gt, deviation), gt).item() for deviation in (10, 30))
        bicubic4, bicubic2 = (
            metric((matlab_bicubic(lq_levels(gt, scale).double(), up=scale) + 0.5).clamp(0, 255).byte(), gt).item()
            for scale in (4, 2)
        )
        assert psnr(shifted, gt) < psnr(blurred(gt, 3), gt)
        assert shift < 0.5 * blur3 < blur3 < blur7 < 1
        assert 0 < shift < noise10 < noise30
        assert 2 * shift < bicubic2 < bicubic4

    def test_equal_and_flat(self, metric) -> None:
        gt = photo("coffee")
        assert metric(gt, gt).item() == 0
        assert 0.7 < metric(torch.full_like(gt, 128), gt).item() < 1
        flat = torch.full_like(gt, 128)
        assert metric(flat, flat + 3).item() == pytest.approx(0, abs=1e-9)

    def test_a_batch_is_its_images(self, metric) -> None:
        gt = torch.cat([photo("coffee"), photo("chelsea")])
        sr = noisy(gt, 5)
        alone = torch.cat([metric(sr[i : i + 1], gt[i : i + 1], 3) for i in range(2)])
        assert metric(sr, gt, 3).dtype == torch.float64
        assert torch.allclose(metric(sr, gt, 3), alone, rtol=1e-10)

    def test_crop(self, metric) -> None:
        gt = photo("coffee")
        sr = gt.clone()
        sr[..., :4, :] = 255
        assert metric(sr, gt, 4).item() == 0 < metric(sr, gt, 0).item()

    def test_wrong_input(self, metric) -> None:
        gt = photo("coffee")
        for sr, other, crop, what in (
            (gt.float(), gt, 0, "sr: expected uint8 RGB"),
            (gt, gt[..., 1:], 0, "one shape"),
            (gt, gt, 60, "too small"),
        ):
            with pytest.raises(ValueError, match=what):
                metric(sr, other, crop)


def test_texture_distance_by_scipy() -> None:
    """Windows are cut and their entries compared one by one."""
    gt = photo("coffee")[..., :64, :72]
    sr = noisy(gt, 10)
    by_scale = []
    a, b = (image[0].double().numpy() for image in (sr, gt))
    for _ in range(3):
        entries = []
        for image in (a, b):
            dx, dy = (image[:, 1:-1, 2:] - image[:, 1:-1, :-2]) / 2, (image[:, 2:, 1:-1] - image[:, :-2, 1:-1]) / 2
            mean = (image[:, 1:-1, 2:] + image[:, 1:-1, :-2] + image[:, 2:, 1:-1] + image[:, :-2, 1:-1]) / 4
            maps = np.concatenate([dx, dy, mean - image[:, 1:-1, 1:-1]])
            grams = []
            for i in range(0, maps.shape[1] - 7, 4):
                for j in range(0, maps.shape[2] - 7, 4):
                    window = maps[:, i : i + 8, j : j + 8].reshape(9, 64)
                    grams.append((window @ window.T / 64)[np.triu_indices(9)])
            entries.append(np.sign(grams) * np.sqrt(np.abs(grams)))
        distance = np.mean(
            [scipy.stats.wasserstein_distance(x, y) for x, y in zip(*(e.T for e in entries), strict=True)]
        )
        by_scale.append(distance / (np.abs(entries[1]).mean() + 0.5))
        a, b = ((x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4 for x in (a, b))
    assert texture_distance(sr, gt).item() == pytest.approx(np.mean(by_scale), rel=1e-9)


class TestPatchSwd:
    def test_seed(self) -> None:
        gt = photo("coffee")
        sr = blurred(gt, 5)
        first, again, other = patch_swd(sr, gt), patch_swd(sr, gt), patch_swd(sr, gt, seed=1)
        assert torch.equal(first, again)
        assert not torch.equal(first, other)
        assert torch.allclose(first, other, rtol=0.1)

    def test_by_scipy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gt = photo("chelsea")[..., :64, :72]
        sr = blurred(gt, 3)
        directions = torch.randn(64, 147, generator=torch.Generator().manual_seed(0), dtype=torch.float64).numpy()
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        by_scale = []
        a, b = sr.double(), gt.double()
        for _ in range(3):
            small = [F.interpolate(x, scale_factor=0.5, mode="area") for x in (a, b)]
            projected = []
            for x, coarse in zip((a, b), small, strict=True):
                band = (x - F.interpolate(coarse, size=x.shape[-2:], mode="bilinear"))[0].numpy()
                windows = np.lib.stride_tricks.sliding_window_view(band, (7, 7), axis=(1, 2))
                projected.append(np.einsum("chwij,kcij->khw", windows, directions.reshape(64, 3, 7, 7)).reshape(64, -1))
            distance = np.mean([scipy.stats.wasserstein_distance(x, y) for x, y in zip(*projected, strict=True)])
            by_scale.append(distance / (np.abs(projected[1]).mean() + 0.5))
            a, b = small
        assert patch_swd(sr, gt).item() == pytest.approx(np.mean(by_scale), rel=1e-9)
