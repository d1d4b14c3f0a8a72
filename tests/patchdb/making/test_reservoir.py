from pathlib import Path

import numpy as np
import pytest

from gramgan_plugin.patchdb.making import reservoir
from gramgan_plugin.patchdb.making.reservoir import Reservoir, Rows, cell_words, priorities

COUNT = 4000


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it settles many times."""
    monkeypatch.setattr(reservoir, "ROWS_AT_ONCE", 64)


def offers(alike: int) -> tuple[np.ndarray, np.ndarray, Rows]:
    rng = np.random.default_rng(alike)
    likeness = rng.integers(0, COUNT // alike, COUNT).astype(np.uint64)
    priority = rng.permutation(COUNT).astype(np.uint64) << np.uint64(30)
    patches = rng.integers(0, 256, (COUNT, 2, 2, 3), np.uint8)
    numbers = np.arange(COUNT, dtype=np.int32)
    origins = np.stack([numbers % 7, numbers // 7, numbers * 0 + 3, numbers % 3], axis=1)
    return likeness, priority, Rows(patches, origins, numbers)


def expected(most: int, likeness: np.ndarray, priority: np.ndarray) -> set[int]:
    """Of each likeness the smallest priority; of these the ``most`` smallest. In plain Python."""
    best: dict[int, int] = {}
    for place in range(COUNT):
        other = best.get(int(likeness[place]))
        if other is None or priority[place] < priority[other]:
            best[int(likeness[place])] = place
    return set(sorted(best.values(), key=lambda place: int(priority[place]))[:most])


class TestReservoir:
    @pytest.mark.parametrize("most", [1, 50, 700, 100_000])
    @pytest.mark.parametrize("alike", [1, 8])
    def test_feature(self, tmp_path: Path, most: int, alike: int) -> None:
        """Against a dictionary and a sort, for several orders and sizes of what is offered at once."""
        likeness, priority, rows = offers(alike)
        wanted = expected(most, likeness, priority)
        for seed in range(3):
            rng = np.random.default_rng(seed)
            order = rng.permutation(COUNT)
            kept = Reservoir(most, (2, 2, 3), tmp_path / "scratch")
            for part in np.array_split(order, np.sort(rng.integers(0, COUNT, 20))):
                kept.add(likeness[part], priority[part], Rows(*(field[part] for field in rows)))
                assert kept.count <= kept.capacity
            kept.settle()
            found = list(kept.rows(np.arange(7, dtype=np.int32)[::-1].copy()))
            kept.close()
            ranks = np.concatenate([block.ranks for block in found])
            assert set(ranks.tolist()) == wanted
            assert kept.count == len(ranks) == len(wanted)
            assert (np.concatenate([block.patches for block in found]) == rows.patches[ranks]).all()
            origins = np.concatenate([block.origins for block in found])
            assert (origins[:, 1:] == rows.origins[ranks, 1:]).all()
            assert (origins[:, 0] == 6 - rows.origins[ranks, 0]).all()
            assert sorted(origins[:, [0, 3, 1]].tolist()) == origins[:, [0, 3, 1]].tolist()

    def test_feature_file_stays_small(self, tmp_path: Path) -> None:
        """Places of the file are used again: it holds what fits, not all that was ever offered."""
        likeness, priority, rows = offers(1)
        kept = Reservoir(50, (2, 2, 3), tmp_path / "scratch")
        for first in range(0, COUNT, 10):
            part = slice(first, first + 10)
            kept.add(likeness[part], priority[part], Rows(*(field[part] for field in rows)))
        kept.settle()
        kept.close()
        assert (tmp_path / "scratch").stat().st_size <= kept.capacity * (12 + 16 + 4)

    def test_feature_highest_rank(self, tmp_path: Path) -> None:
        """It says correctly which ranks cannot be kept any more."""
        cells = cell_words(["ab" * 32, "cd" * 32])[:, 0]
        kept = Reservoir(10, (2, 2, 3), tmp_path / "scratch")
        assert kept.highest_rank == 2**28 - 1
        ranks = np.arange(40, dtype=np.int32)
        empty = Rows(np.zeros((40, 2, 2, 3), np.uint8), np.zeros((40, 4), np.int32), ranks)
        for number, cell in enumerate(cells):
            kept.add(ranks.astype(np.uint64) + np.uint64(100 * number), priorities(np.repeat(cell, 40), ranks), empty)
        kept.settle()
        assert kept.highest_rank == 4  # five of each
        kept.close()


class TestPriorities:
    def test_feature_ranks_first(self) -> None:
        """Rank decides; between photos and variants of one rank something like chance does."""
        photos = [f"{number:064x}" for number in range(2**240, 2**240 + 300)]
        photos = [text[::-1] for text in photos]
        cells = cell_words(photos)
        assert cells.shape == (300, 3)
        zero, one = (priorities(cells, np.full(cells.shape, rank)) for rank in (0, 1))
        assert zero.max() < one.min()
        assert len(np.unique(zero)) == 900
        # Who comes first at one rank doesn't at the next.
        assert (
            abs(np.corrcoef(np.argsort(np.argsort(zero[:, 0])), np.argsort(np.argsort(one[:, 0] % 2**36)))[0, 1]) < 0.2
        )
        shares = np.argsort(zero.ravel())[:300] % 3
        assert np.bincount(shares).min() > 70
