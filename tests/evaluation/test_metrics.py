"""The metrics of a benchmark measure several models' images at once as one by one, and on a GPU as on the CPU."""

import numpy as np
import pytest
import skimage.data
import torch

from gramgan_plugin.errors import UserError
from gramgan_plugin.evaluation import benchmark_run
from gramgan_plugin.evaluation.metric_labels import MetricLabel
from gramgan_plugin.evaluation.metrics import LABELS, Compared, Metric, choose_metrics

PLAIN = [name for name in LABELS if name not in ("lpips", "lpips_vgg", "dists")]


def compared(gt: np.ndarray, device: str = "cpu") -> Compared:
    """Two images like GT, and LQ."""
    random = np.random.default_rng(0)
    noisy = np.clip(gt + random.normal(0, 12, gt.shape), 0, 255).astype(np.uint8)
    blurred = np.clip((gt.astype(float) + np.roll(gt, 1, 0) + np.roll(gt, 1, 1)) / 3, 0, 255).astype(np.uint8)
    return Compared.of([noisy, blurred], gt, np.ascontiguousarray(gt[::4, ::4]), 4, torch.device(device))


@pytest.mark.parametrize("name", PLAIN)
def test_together_as_one_by_one(name):
    images = compared(skimage.data.astronaut()[:204, 100:320])
    ((metric,), _) = choose_metrics([name])
    values = benchmark_run._values(metric, images)
    single = [benchmark_run._values(metric, one)[0] for one in images.one_by_one()]
    assert values == pytest.approx(single, rel=1e-6)
    assert values[0] != values[1]


def test_one_by_one_where_memory_is_short():
    """And what does not fit even then is left out with the reason."""
    images, sizes = compared(skimage.data.astronaut()[:64, :64]), []

    def mean(one: Compared) -> torch.Tensor:
        sizes.append(len(one.sr))
        if len(one.sr) > 1 or torch.equal(one.sr, images.sr[1:]):
            raise torch.OutOfMemoryError("CUDA out of memory")
        return one.sr.double().mean((1, 2, 3))

    values = benchmark_run._values(Metric(MetricLabel("mean", "mean", "lower", 1), mean), images)
    assert values == [images.sr[0].double().mean().item(), "not enough memory to measure it"]
    assert sizes == [2, 1, 1]


@pytest.mark.parametrize("error", [UserError, ValueError])
def test_reason_why_an_image_has_no_value(error):
    images = compared(skimage.data.astronaut()[:64, :64])

    def fails(one: Compared) -> torch.Tensor:
        raise error("too small")

    label = MetricLabel("mean", "mean", "lower", 1)
    assert benchmark_run._values(Metric(label, fails), images) == ["too small"] * 2
    infinite = Metric(label, lambda one: torch.tensor([float("nan"), 2.0]))
    assert benchmark_run._values(infinite, images) == ["the value is nan", 2.0]


@pytest.mark.gpu
@pytest.mark.parametrize("name", PLAIN)
def test_on_a_gpu(name):
    """Of an image for which cuDNN would convolve in TF32."""
    gt = skimage.data.astronaut()
    ((metric,), _) = choose_metrics([name])
    values = metric.compute(compared(gt, "cuda"))
    assert values.cpu().tolist() == pytest.approx(metric.compute(compared(gt)).tolist(), rel=2e-5)
