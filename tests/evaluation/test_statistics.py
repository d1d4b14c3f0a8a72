from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gramgan_plugin.evaluation import statistics
from gramgan_plugin.evaluation.statistics import Difference, paired_difference


def _named(values):
    return {f"image{i:03d}": float(value) for i, value in enumerate(values)}


def _bca(differences, resamples=20_000):
    """Return the BCa interval of the mean by Efron's formulas."""
    n, normal = len(differences), NormalDist()
    drawn = np.random.default_rng(9).choice(differences, (resamples, n)).mean(axis=1)
    z0 = normal.inv_cdf((np.mean(drawn < differences.mean()) + np.mean(drawn <= differences.mean())) / 2)
    jackknife = (differences.sum() - differences) / (n - 1)
    away = jackknife.mean() - jackknife
    a = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
    shares = []
    for probability in (0.025, 0.975):
        z = z0 + normal.inv_cdf(probability)
        shares.append(normal.cdf(z0 + z / (1 - a * z)))
    return np.quantile(drawn, shares)


@pytest.mark.parametrize("n", [14, 40])
def test_interval_is_the_one_of_efron(n):
    generator = np.random.default_rng(n)
    second = generator.normal(30, 3, n)
    differences = generator.exponential(0.3, n) - 0.2  # skew, so that BCa and percentile differ
    found = paired_difference(_named(second + differences), _named(second))
    assert (found.n, found.method) == (n, "BCa")
    assert found.mean == pytest.approx(differences.mean())
    assert [found.low, found.high] == pytest.approx(_bca(differences), abs=0.03 * np.ptp(differences) / n**0.5)


def test_the_same_twice_and_in_any_order():
    values = _named(np.random.default_rng(0).normal(size=12))
    second = dict.fromkeys(values, 0.1)
    found = paired_difference(values, second)
    assert found == paired_difference(dict(reversed(values.items())), second)
    assert found != paired_difference(values, second, seed=1)


def test_only_common_images():
    assert paired_difference({"a": 3.0, "b": 5.0, "c": 9.0}, {"b": 1.0, "c": 5.0, "d": 0.0}).mean == 4
    with pytest.raises(ValueError, match="no image in common"):
        paired_difference({"a": 1.0}, {"b": 1.0})


def test_few_or_identical_values():
    assert paired_difference({"a": 3.0}, {"a": 1.0}) == Difference(2.0, None, None, 1, "none")
    assert not paired_difference({"a": 3.0}, {"a": 1.0}).significant
    two = paired_difference({"a": 3.0, "b": 2.0}, {"a": 1.0, "b": 1.0})
    assert two == Difference(1.5, 1.0, 2.0, 2, "percentile")
    same = _named(range(20))
    assert paired_difference(same, same) == Difference(0.0, 0.0, 0.0, 20, "percentile")
    assert not paired_difference(same, same).significant


def test_percentile_where_bca_is_undefined(monkeypatch):
    interval = statistics._interval

    def undefined(differences, method, *others):
        return (float("nan"),) * 2 if method == "BCa" else interval(differences, method, *others)

    monkeypatch.setattr(statistics, "_interval", undefined)
    found = paired_difference(_named([1.0, 2.0, 4.0, 5.0]), _named([0.0] * 4))
    assert found.method == "percentile"
    assert 1 < found.low < 3 < found.high < 5


def test_significant():
    generator = np.random.default_rng(2)
    noise = generator.normal(size=30)
    assert paired_difference(_named(noise + 1.5), _named(noise * 0)).significant
    assert not paired_difference(_named(noise - noise.mean()), _named(noise * 0)).significant


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-50, 50, width=16), min_size=1, max_size=12))
def test_negated_if_exchanged(values):
    first, second = _named(values), _named([0.0] * len(values))
    one, other = (paired_difference(*pair, resamples=999) for pair in ((first, second), (second, first)))
    assert one.mean == -other.mean
    if one.low is not None:
        assert min(values) - 1e-9 <= one.low <= one.high <= max(values) + 1e-9
        width = max(values) - min(values)
        assert [one.low, one.high] == pytest.approx([-other.high, -other.low], abs=0.1 * width + 1e-9)
