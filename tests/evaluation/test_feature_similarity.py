import pytest
import skimage.data
import torch
import torch.nn.functional as F
from torch import Tensor

from gramgan_plugin.evaluation.feature_similarity import fsim, gmsd

PHOTOS = {
    "astronaut": skimage.data.astronaut()[:384],  # is halved for FSIM
    "chelsea": skimage.data.chelsea()[:203, :331],  # odd sides
    "coffee": skimage.data.coffee()[:120, :201],
}


def photo(name: str) -> Tensor:
    return torch.from_numpy(PHOTOS[name].copy()).permute(2, 0, 1)[None]


def worse(gt: Tensor) -> Tensor:
    noise = torch.randn(gt.shape, generator=torch.Generator().manual_seed(0)) * 4
    return (F.avg_pool2d(gt.float(), 3, 1, 1) + noise).clamp(0, 255).byte()


@pytest.mark.parametrize("name", PHOTOS)
class TestAgainstPiq:
    @pytest.fixture(autouse=True)
    def piq(self):
        self.piq = pytest.importorskip("piq")

    def test_gmsd(self, name: str) -> None:
        gt = photo(name)
        sr = worse(gt)
        expected = self.piq.gmsd(sr[..., 3:-3, 3:-3] / 255, gt[..., 3:-3, 3:-3] / 255, reduction="none")
        assert torch.allclose(gmsd(sr, gt, crop=3), expected.double(), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("color", [False, True])
    def test_fsim(self, name: str, color: bool) -> None:
        gt = photo(name)
        sr = worse(gt)
        expected = self.piq.fsim(sr / 255, gt / 255, reduction="none", chromatic=color)
        assert torch.allclose(fsim(sr, gt, color=color), expected.double(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("metric", [gmsd, fsim, lambda sr, gt, crop=0: fsim(sr, gt, crop, color=True)])
class TestBoth:
    def test_a_batch_is_its_images(self, metric) -> None:
        gt = torch.cat([photo("coffee"), photo("coffee").flip(-1)])
        sr = worse(gt)
        alone = torch.cat([metric(sr[i : i + 1], gt[i : i + 1], 2) for i in range(2)])
        assert metric(sr, gt, 2).dtype == torch.float64
        assert torch.allclose(metric(sr, gt, 2), alone, rtol=1e-12)

    def test_symmetric_and_equal_images(self, metric) -> None:
        gt = photo("coffee")
        sr = worse(gt)
        assert torch.allclose(metric(sr, gt), metric(gt, sr), rtol=1e-12)
        assert metric(gt, gt).item() == pytest.approx(0 if metric is gmsd else 1, abs=1e-12)

    def test_flat_images_are_finite(self, metric) -> None:
        black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
        assert metric(black, black + 9).isfinite().all()

    def test_wrong_input(self, metric) -> None:
        gt = photo("coffee")
        for sr, crop, what in (
            (gt.float(), 0, r"sr: expected uint8 RGB .* got float32"),
            (gt[:, :1], 0, r"sr: expected"),
            (gt[..., 1:], 0, r"expected one shape"),
            (gt, -1, r"crop: expected at least 0"),
            (gt, 60, r"201x120 pixels without 60 at each border"),
        ):
            with pytest.raises(ValueError, match=what):
                metric(sr, gt, crop)


def test_gmsd_by_hand() -> None:
    """A step of 40 levels beside a flat image: similarity 170 / (m² + 170) at the step, 1 elsewhere."""
    flat = torch.full((1, 3, 16, 16), 100, dtype=torch.uint8)
    step = flat.clone()
    step[..., 8:] = 140
    a, b = torch.zeros(8, 8), torch.zeros(8, 8)
    for image, gradient in ((flat, a), (step, b)):
        small = F.pad(image[0, 0, ::2, ::2].float(), (1, 1, 1, 1))
        for i in range(8):
            for j in range(8):
                near = small[i : i + 3, j : j + 3]
                dx, dy = (near[:, 2] - near[:, 0]).sum() / 3, (near[2] - near[0]).sum() / 3
                gradient[i, j] = (dx**2 + dy**2).sqrt()
    similarity = (2 * a * b + 170) / (a**2 + b**2 + 170)
    assert gmsd(step, flat).item() == pytest.approx(similarity.std(correction=0).item(), rel=1e-5)
