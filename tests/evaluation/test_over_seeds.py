import numpy as np
import pytest

from gramgan_plugin.evaluation.measure import SetResult
from gramgan_plugin.evaluation.over_seeds import averaged_results, over_seeds

MEMBERS = {"a s0": ("a", 0), "a s1": ("a", 1), "a s5": ("a", 5), "b s0": ("b", 0)}


@pytest.fixture
def values() -> dict[str, np.ndarray]:
    """model -> images' values."""
    random = np.random.default_rng(2)
    return {model: 25 + random.normal(size=4) for model in MEMBERS}


@pytest.fixture
def results(values) -> list[SetResult]:
    names = ("baby", "bird", "head", "woman")
    return [
        SetResult(model, dataset, {"psnr": dict(zip(names, own + shift, strict=True))})
        for dataset, shift in (("Set5", 0.0), ("Set14", 1.0))
        for model, own in values.items()
    ]


def test_mean_and_standard_deviation(values, results):
    rows = {(row.dataset, row.variant): row for row in over_seeds(results, MEMBERS)}
    assert len(rows) == 4
    means = [values[model].mean() + 1 for model in ("a s0", "a s1", "a s5")]
    row = rows["Set14", "a"]
    assert list(row.per_seed) == [0, 1, 5]
    assert list(row.per_seed.values()) == pytest.approx(means)
    assert row.mean == pytest.approx(np.mean(means))
    assert row.std == pytest.approx(np.std(means, ddof=1))
    assert rows["Set5", "b"].std is None


def test_images_averaged_over_seeds(values, results):
    averaged = {(one.dataset, one.model): one for one in averaged_results(results, MEMBERS)}
    expected = np.mean([values[model] for model in ("a s0", "a s1", "a s5")], axis=0)
    assert list(averaged["Set5", "a"].per_image["psnr"].values()) == pytest.approx(expected)
    assert averaged["Set5", "b"].per_image == results[3].per_image


def test_an_image_that_a_seed_lacks(results):
    del results[1].per_image["psnr"]["bird"]
    averaged = {(one.dataset, one.model): one for one in averaged_results(results, MEMBERS)}
    assert list(averaged["Set5", "a"].per_image["psnr"]) == ["baby", "head", "woman"]
    results[1].per_image = {}
    averaged = {(one.dataset, one.model): one for one in averaged_results(results, MEMBERS)}
    assert averaged["Set5", "a"].per_image == {}
    (row,) = [row for row in over_seeds(results, MEMBERS) if (row.dataset, row.variant) == ("Set5", "a")]
    assert list(row.per_seed) == [0, 5]
