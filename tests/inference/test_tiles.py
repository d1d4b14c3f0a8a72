"""Tiles cover an image once, with the overlap that they promise."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gramgan_plugin.inference.tiles import spans, tiles


@settings(max_examples=300, deadline=None)
@given(
    side=st.integers(1, 5000),
    overlap=st.integers(0, 50),
    multiple=st.sampled_from([1, 2, 4, 8]),
    room=st.integers(1, 900),
)
def test_any(side, overlap, multiple, room):
    tile = 2 * overlap + 2 * multiple + room
    found = spans(side, tile, overlap, multiple)
    assert [found[0].first, found[-1].last] == [0, side]
    assert all(before.last == after.first for before, after in pairwise(found))
    for span in found:
        assert 0 <= span.begin <= span.first < span.last <= span.end <= side
        assert span.begin % multiple == 0
        assert span.begin == 0 or span.first - span.begin >= overlap
        assert span.end == side or span.end - span.last >= overlap
        assert span.end - span.begin <= tile + multiple


def test_one_tile():
    for tile in (0, 70, 71):
        (span,) = spans(70, tile, 10)
        assert (span.begin, span.end, span.first, span.last) == (0, 70, 0, 70)


def test_every_pixel_once():
    seen = [[0] * 50 for _ in range(41)]
    for rows, columns in tiles(41, 50, 24, 5):
        for y in range(rows.first, rows.last):
            for x in range(columns.first, columns.last):
                seen[y][x] += 1
    assert {count for row in seen for count in row} == {1}
