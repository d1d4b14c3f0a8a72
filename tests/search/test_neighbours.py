import numpy as np
import torch

from gramgan_plugin.search import neighbours
from gramgan_plugin.search.neighbours import centre_of, in_order, sample, squared_distances


class TestSample:
    def test_at_most_so_many_rows_evenly_spread(self, monkeypatch):
        monkeypatch.setattr(neighbours, "SAMPLE_ROWS", 10)
        for count in (1, 10, 11, 19, 20, 21, 95):
            rows = sample(torch.arange(count)[:, None])[:, 0].tolist()
            step = min(step for step in range(1, count + 1) if len(range(0, count, step)) <= 10)
            assert rows == list(range(0, count, step))

    def test_at_most_so_many_numbers(self, monkeypatch):
        monkeypatch.setattr(neighbours, "SAMPLE_NUMBERS", 12)
        assert sample(torch.zeros(100, 5)).numel() <= 12
        assert len(sample(torch.zeros(100, 50))) == 1, "but at least one row"


def test_centre_is_a_mean_that_float32_can_write():
    rows = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) + 7
    assert centre_of(rows).dtype == torch.float64
    assert np.array_equal(centre_of(rows).numpy(), rows.numpy().astype(np.float64).mean(axis=0).astype(np.float32))


def test_distances_of_pairs_in_parts(monkeypatch):
    monkeypatch.setattr(neighbours, "CPU_NUMBERS", 8)
    queries, rows = (torch.randn(6, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    which, index = torch.tensor([0, 0, 5, 2, 1, 3, 3]), torch.tensor([5, 1, 0, 0, 2, 3, 4])
    found = squared_distances(queries, rows, which, index)
    difference = queries.double().numpy()[which.numpy()] - rows.double().numpy()[index.numpy()]
    np.testing.assert_allclose(found.numpy(), (difference**2).sum(axis=1), rtol=1e-14)


def test_in_order():
    found = in_order(torch.tensor([[2.0, 1.0, 1.0, 0.0]]), torch.tensor([[1, 9, 4, 7]]))
    assert (found.squared.tolist(), found.rows.tolist()) == ([[0, 1, 1, 2]], [[7, 4, 9, 1]])
