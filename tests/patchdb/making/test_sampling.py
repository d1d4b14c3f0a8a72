import itertools

import numpy as np
import pytest
import skimage.data

from gramgan_plugin.patchdb.making.sampling import cut_patches, find_places, likeness

COFFEE = skimage.data.coffee()[:203, :310]


def contrast(patch: np.ndarray) -> float:
    """In float64, from its definition."""
    return float(np.sqrt((patch.reshape(-1, 3) / 255).var(axis=0).mean()))


class TestFindPlaces:
    @pytest.mark.parametrize("size", [2, 4, 9])
    def test_feature(self, size: int) -> None:
        """All patches of a grid with enough contrast, and no other; counted right."""
        found = find_places(COFFEE, size, 0.02, (1, 2), 10**9)
        tops, lefts = set((found.y % size).tolist()), set((found.x % size).tolist())
        assert len(tops) == len(lefts) == 1
        rows, columns = range(tops.pop(), 203 - size + 1, size), range(lefts.pop(), 310 - size + 1, size)
        grid = [(y, x) for y in rows for x in columns]
        wanted = {(y, x) for y, x in grid if contrast(COFFEE[y : y + size, x : x + size]) >= 0.02}
        places = list(zip(found.y.tolist(), found.x.tolist(), strict=True))
        assert len(places) == len(set(places))
        assert set(places) == wanted
        assert (found.examined, found.usable) == (len(grid), len(wanted))
        assert 0.2 * len(grid) < len(wanted) < 0.9 * len(grid)

    def test_feature_first_ones(self) -> None:
        """The first few are the begin of all."""
        everything = find_places(COFFEE, 4, 0.01, (5,), 10**9)
        for most in (0, 1, 17, 500):
            few = find_places(COFFEE, 4, 0.01, (5,), most)
            assert few.y.tolist() == everything.y[:most].tolist()
            assert few.x.tolist() == everything.x[:most].tolist()
            assert few.usable == everything.usable

    def test_feature_random(self) -> None:
        """Spread over the image, with another order and another grid for another key, and none for the same."""
        found = [find_places(COFFEE, 4, 0.0, (key, 0), 400) for key in range(30)]
        assert len({(int(places.y[0]) % 4, int(places.x[0]) % 4) for places in found}) > 8
        for places in found:
            quarters = np.bincount(2 * (places.y > 100) + (places.x > 155), minlength=4)
            assert quarters.min() > 60  # of 100
        firsts = [set(zip((places.y // 4).tolist(), (places.x // 4).tolist(), strict=True)) for places in found]
        shared = [len(a & b) for a, b in itertools.combinations(firsts, 2)]
        assert max(shared) < 100  # of 400 among 3800: 42 by chance
        again = find_places(COFFEE, 4, 0.0, (3, 0), 400)
        assert (again.y == found[3].y).all()

    @pytest.mark.parametrize("shape", [(3, 50), (50, 3), (0, 9)])
    def test_feature_too_small(self, shape: tuple[int, int]) -> None:
        found = find_places(np.zeros((*shape, 3), np.uint8), 4, 0.0, (1,), 5)
        assert (found.examined, found.usable, len(found.y)) == (0, 0, 0)

    def test_feature_one_patch(self) -> None:
        found = find_places(COFFEE[:4, :4], 4, 0.0, (9,), 5)
        assert (found.examined, found.y.tolist(), found.x.tolist()) == (1, [0], [0])


class TestCutPatches:
    def test_feature(self) -> None:
        y, x = np.array([0, 199, 7], np.int32), np.array([306, 0, 5], np.int32)
        patches = cut_patches(COFFEE, 4, y, x)
        assert patches.shape == (3, 4, 4, 3)
        for patch, top, left in zip(patches, y, x, strict=True):
            assert (patch == COFFEE[top : top + 4, left : left + 4]).all()


class TestLikeness:
    PATCHES = cut_patches(COFFEE, 4, *(np.random.default_rng(0).integers(0, 190, (2, 3000)).astype(np.int32)))

    def test_feature(self) -> None:
        """The same word exactly where means and roots of covariances, computed in float64, agree to the step."""
        rows = []
        for patch in self.PATCHES:
            values = patch.reshape(16, 3).astype(np.float64)
            covariances = np.cov(values.T, bias=True)[np.triu_indices(3)]
            rows.append([*values.mean(axis=0), *(np.sign(covariances) * np.sqrt(abs(covariances)))])
        scaled = np.array(rows) / 8
        safe = (abs(scaled - np.floor(scaled) - 0.5) > 1e-6).all(axis=1)  # not on a border, where rounding decides
        cells = [tuple(row) for row in np.rint(scaled[safe]).astype(int).tolist()]
        words = likeness(self.PATCHES, 8)[safe].tolist()
        assert len(set(cells)) == len(set(words)) < 0.9 * len(words)
        assert len(set(zip(cells, words, strict=True))) == len(set(cells))

    @pytest.mark.parametrize("size", [2, 3, 4])
    def test_feature_equal_ones(self, size: int) -> None:
        patches = np.ascontiguousarray(self.PATCHES[:, :size, :size])
        patches = np.concatenate([patches, patches[::2]])
        words = likeness(patches, 0)
        different = len({patch.tobytes() for patch in patches})
        assert len(np.unique(words)) == different <= 3000
        assert (words[3000:] == words[:3000:2]).all()
        changed = patches.copy()
        changed[:, -1, -1, -1] ^= 1
        assert (likeness(changed, 0) != words).all()

    def test_feature_grows(self) -> None:
        counts = [len(np.unique(likeness(self.PATCHES, step))) for step in (0, 1, 4, 16, 64)]
        assert counts == sorted(counts, reverse=True)
        assert counts[-1] < 0.1 * counts[0]
