import re

import numpy as np
import pytest

from gramgan_plugin.prepare.verify.alignment import Measured
from gramgan_plugin.prepare.verify.outcome import State
from gramgan_plugin.prepare.verify.pair_checks import _words, check_sizes, guess_scale, judge, made_kind

MATLAB = Measured("matlab", 0.001)


def fitted(x: float, y: float, error: float = 0.05, difference: float = 3.0) -> Measured:
    return Measured("fitted", difference, difference, 0.95, x, y, error, convincing=error < 1)


def many(*pairs: Measured) -> dict[str, Measured]:
    return {f"k{number:03d}": pair for number, pair in enumerate(pairs)}


class TestJudge:
    def test_feature_matlab(self) -> None:
        check = judge("a", many(*[MATLAB] * 7, Measured("flat", 2, 2)), 4)
        assert check.state is State.OK
        assert re.fullmatch(r"MATLAB's bicubic within .* 7 pairs, 1 whose shift .*", check.text)
        assert check.facts["matlab_bicubic"] == 7
        assert check.facts["shift"] == {"x": 0.0, "y": 0.0, "error": 0.0}

    def test_feature_matlab_uint8(self) -> None:
        uint8, flat = Measured("uint8", 0.0), Measured("matlab", 0.0, either=True)
        check = judge("a", many(*[uint8] * 7, flat), 4)
        assert check.state is State.OK
        assert re.fullmatch(r"[^,]*matlab-uint8[^,]* 8 pairs", check.text)
        assert (check.facts["matlab_bicubic"], check.facts["matlab_uint8"]) == (0, 8)
        assert made_kind(many(uint8, flat)) == "matlab-uint8"
        assert made_kind(many(MATLAB, flat)) == made_kind(many(flat)) == "matlab-bicubic"
        assert made_kind(many(MATLAB, uint8)) is made_kind(many(uint8, fitted(0, 0))) is made_kind({}) is None
        both = judge("a", many(*[MATLAB] * 3, *[uint8] * 2), 4).text
        assert re.fullmatch(r"MATLAB's bicubic within .* 3 pairs, .*matlab-uint8.* 2 pairs", both)

    def test_feature_another_downsampling_is_a_note(self) -> None:
        rng = np.random.default_rng(0)
        pairs = [fitted(*rng.normal(0, 0.4, 2), error=0.4) for _ in range(200)]
        check = judge("a", many(*pairs), 4)
        assert check.state is State.NOTE
        assert re.fullmatch(r"another downsampling in 200 .*3\.00 levels.*", check.text)
        assert max(abs(check.facts["shift"]["x"]), abs(check.facts["shift"]["y"])) < 0.2

    def test_feature_a_common_shift(self) -> None:
        rng = np.random.default_rng(0)
        pairs = [fitted(1.5 + rng.normal(0, 0.4), 1.5 + rng.normal(0, 0.4), 0.4) for _ in range(100)]
        check = judge("a", many(*pairs), 4)
        assert check.state is State.WRONG
        assert check.text.startswith("LQ is shifted: LQ's content lies 1.")
        assert "[::4], OpenCV's INTER_NEAREST" in check.text
        assert check.count == 0, "no pair is worse than the others"
        assert check.facts["shift"]["x"] == pytest.approx(1.5, abs=4 * check.facts["shift"]["error"])

    def test_feature_a_common_shift_of_one_axis(self) -> None:
        check = judge("a", many(*[fitted(0.0, -0.5)] * 9), 4)
        assert check.state is State.WRONG
        assert "0.50 GT pixels further up" in check.text
        assert "[::" not in check.text

    def test_feature_one_pair_among_many(self) -> None:
        check = judge("a", many(*[MATLAB] * 50, fitted(-1.0, 0.0)), 4)
        assert check.state is State.WRONG
        ((key, text),) = check.items
        assert key == "k050"
        assert "1.00 GT pixels further left" in text
        assert check.text.startswith("1 of 51 pairs do not fit; MATLAB's bicubic ")

    def test_feature_a_pair_is_not_excused_by_others_of_its_kind(self) -> None:
        """Ten times the usual error is not asked for where the rest is exact."""
        check = judge("a", many(*[MATLAB] * 50, *[fitted(-1.0, 0.0, error=0.1)] * 5), 4)
        assert check.count == 5

    def test_feature_one_pair_among_shifted_ones(self) -> None:
        check = judge("a", many(*[fitted(1.0, 1.0)] * 20, fitted(0.0, 0.0)), 4)
        assert check.text.startswith("1 of 21 pairs do not fit; LQ is shifted: ")
        assert [key for key, _ in check.items] == ["k020"]

    def test_feature_uncertain_estimates_are_no_shifts(self) -> None:
        assert judge("a", many(*[MATLAB] * 5, fitted(3.0, 0.0, error=0.6)), 8).state is State.NOTE
        assert judge("a", many(fitted(0.5, 0.5, error=0.3)), 4).state is State.NOTE

    def test_feature_a_single_shift_that_changes_nothing(self) -> None:
        """A smooth pair among degraded ones: an estimate that stands on less than their usual difference."""
        pairs = [fitted(0.0, 0.0)] * 20
        assert judge("a", many(*pairs, fitted(1.0, 0.0, difference=1.0)), 4).state is State.NOTE
        assert judge("a", many(*pairs, fitted(1.0, 0.0, difference=6.0)), 4).state is State.WRONG

    def test_feature_other_photos_and_channels(self) -> None:
        unlike = Measured("unlike", 50, 50, 0.2)
        check = judge("a", many(MATLAB, Measured("other", 50, 50), unlike, Measured("channels", 9)), 4)
        assert check.state is State.WRONG
        photo = "LQ shows another photo, or lies more than 16 pixels off"
        assert check.items == [("k001", photo), ("k002", photo), ("k003", "red and blue are swapped in LQ")]
        assert judge("a", many(unlike, unlike), 4).count == 2

    def test_feature_degraded_pairs_may_resemble_less(self) -> None:
        aliased = Measured("unlike", 14, 14, 0.6)
        assert judge("a", many(*[MATLAB] * 9, aliased), 8).count == 1
        assert judge("a", many(*[fitted(0, 0)] * 9, aliased), 8).state is State.NOTE
        assert judge("a", many(*[fitted(0, 0)] * 9, aliased._replace(resemblance=0.3)), 8).count == 1

    def test_feature_far_off_beside_exact_pairs(self) -> None:
        """However well two photos match by chance."""
        by_chance = Measured("fitted", 40, 40, 0.8, 0.1, 0.1, 3.0, convincing=False)
        assert judge("a", many(*[MATLAB] * 9, by_chance), 4).count == 1
        assert judge("a", many(*[MATLAB] * 9, by_chance._replace(apart=5)), 4).state is State.NOTE

    def test_feature_a_flat_pair_of_another_colour(self) -> None:
        """Unless the whole set has other colours."""
        flat = Measured("flat", 40, 40)
        assert judge("a", many(*[MATLAB] * 9, flat), 4).state is State.WRONG
        assert judge("a", many(*[fitted(0, 0, difference=30)] * 9, flat), 4).state is State.NOTE
        assert judge("a", many(flat, flat), 4).state is State.NOTE


class TestSizes:
    def test_feature(self) -> None:
        gt, lq = {"a": (96, 96, 3), "b": (96, 48, 3)}, {"a": (24, 24, 3), "b": (24, 12, 3)}
        assert guess_scale(gt, lq) == 4
        check = check_sizes("x", gt, lq, 4)
        assert (check.state, check.text) == (State.OK, "2 pairs, x4")

    def test_feature_wrong(self) -> None:
        gt = {"a": (96, 96, 3), "b": (96, 96, 3), "c": (8, 8, 3)}
        lq = {"a": (24, 24, 3), "b": (24, 23, 3), "d": (2, 2, 3)}
        check = check_sizes("x", gt, lq, 4)
        assert check.items == [
            ("c", "without LQ"),
            ("d", "without GT"),
            ("b", "GT 96x96 is not 4 times LQ 23x24"),
        ]

    @pytest.mark.parametrize("lq", [{}, {"a": (50, 50, 3)}, {"a": (0, 0, 3)}, {"a": (200, 200, 3)}])
    def test_feature_no_scale(self, lq: dict[str, tuple[int, int, int]]) -> None:
        assert guess_scale({"a": (96, 96, 3)}, lq) is None


@pytest.mark.parametrize(
    ("shift", "words"),
    [
        ((1.5, -0.25), "1.50 GT pixels further right and 0.25 further up"),
        ((-2, 0.001), "2.00 GT pixels further left"),
        ((0, 3), "3.00 GT pixels further down"),
    ],
)
def test_words(shift: tuple[float, float], words: str) -> None:
    assert _words(np.array(shift)) == f"LQ's content lies {words} than GT's"
