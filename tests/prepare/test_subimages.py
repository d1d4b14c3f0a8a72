from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.subimages import check_grid, count_windows, offsets, thinned, windows

SIDES = st.integers(1, 700)


class TestOffsets:
    @pytest.mark.parametrize(
        ("length", "grid", "expected"),
        [
            (480, (480, 240, 0), [0]),
            (720, (480, 240, 0), [0, 240]),
            (721, (480, 240, 0), [0, 240, 241]),
            (721, (480, 240, 1), [0, 240]),
            (479, (480, 240, 0), []),
            (1000, (480, 480, 0), [0, 480, 520]),
        ],
    )
    def test_feature(self, length: int, grid: tuple[int, int, int], expected: list[int]) -> None:
        assert offsets(length, *grid) == expected

    def test_feature_div2k(self) -> None:
        assert len(offsets(2040, 192, 240, 0)) == 9

    @given(SIDES, st.integers(1, 300), st.integers(1, 300), st.integers(0, 100))
    def test_feature_invariants(self, length: int, crop: int, step: int, thresh: int) -> None:
        begins = offsets(length, crop, step, thresh)
        if length < crop:
            assert begins == []
            return
        assert begins[0] == 0
        assert begins[-1] + crop <= length
        gaps = [after - before for before, after in pairwise(begins)]
        assert all(gap == step for gap in gaps[:-1])
        assert all(0 < gap <= step for gap in gaps)
        # Nothing beyond the threshold stays unused, and a window off the grid is there only for that.
        rest_of_grid = (length - crop) % step
        assert length - begins[-1] - crop == (0 if rest_of_grid > thresh else rest_of_grid)
        assert len(begins) == 1 + (length - crop) // step + (rest_of_grid > thresh)


class TestWindows:
    @given(
        SIDES,
        SIDES,
        st.integers(1, 40),
        st.integers(1, 40),
        st.integers(0, 60),
        st.sampled_from([2, 3, 4, 8]),
    )
    def test_feature_on_whole_lq_pixels(
        self, width: int, height: int, crop: int, step: int, thresh: int, scale: int
    ) -> None:
        found = windows(width, height, crop * scale, step * scale, thresh, scale)
        assert len(found) == len(set(found))
        for x, y, size in found:
            assert x % scale == y % scale == size % scale == 0
            assert x >= 0 <= y
            assert x + size <= width // scale * scale
            assert y + size <= height // scale * scale

    def test_feature_rows_first(self) -> None:
        assert [(w.x, w.y) for w in windows(13, 9, 4, 4, 0, 4)] == [
            (0, 0),
            (4, 0),
            (8, 0),
            (0, 4),
            (4, 4),
            (8, 4),
        ]

    def test_cardinality(self) -> None:
        # DIV2K's most frequent size: 1 + ceil((2040 - 192) / 240) columns, 1 + ceil((1356 - 192) / 240) rows.
        assert count_windows([(2040, 1356)], 192, 240, 0, 4) == 9 * 6
        assert count_windows([(2040, 1356), (191, 500), (192, 195)], 192, 240, 0, 4) == 9 * 6 + 0 + 1

    @pytest.mark.parametrize("grid", [(190, 240, 0, 4), (192, 241, 0, 4), (0, 4, 0, 4), (4, 0, 0, 4), (4, 4, -1, 4)])
    def test_exception(self, grid: tuple[int, int, int, int]) -> None:
        with pytest.raises(UserError, match=r"multiple|at least"):
            check_grid(*grid)


class TestThinned:
    def test_feature(self) -> None:
        places = windows(1411, 1411, 192, 96, 0, 4)
        some = thinned(places, 30)
        assert len(set(some)) == 30
        assert set(some) <= set(places)
        assert {place.y for place in some[:3]} == {0}
        assert max(place.y for place in some) >= 1200, "spread over the whole photo"

    def test_few_are_left_alone(self) -> None:
        places = windows(451, 300, 192, 96, 0, 4)
        assert thinned(places, 30) == thinned(places, None) == places
