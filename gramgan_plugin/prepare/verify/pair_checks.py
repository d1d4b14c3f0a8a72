"""Whether a set of GT and LQ pairs fits together: what the pairs show one by one, taken together."""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC, MATLAB_UINT8
from gramgan_plugin.prepare.verify.alignment import REACH, UNLIKE, Measured
from gramgan_plugin.prepare.verify.database import Shape
from gramgan_plugin.prepare.verify.outcome import Check, State

# In GT pixels. Of photos resized without shift, whatever the noise or blur, the common shift came out below a third of
# these; the smallest shift that a wrong resampling makes is half a pixel.
LEAST_SHIFT = 0.2  # of a whole set ...
ERRORS = 5.0  # ... and so many standard errors of it
LEAST_SHIFT_OF_ONE = 0.35  # of a single pair ...
ERRORS_OF_ONE = (8.0, 16.0)  # ... and so many of its own: ten times what is usual in the set, within these bounds
FLOOR = 0.02  # no single estimate counts as more exact
RESEMBLANCE_IN_NOISE = 0.5  # below it a pair of a set that is not exact shows another photo


def guess_scale(gt: Mapping[str, Shape], lq: Mapping[str, Shape]) -> int | None:
    """Return the whole factor that most pairs have between their heights; None if most have none."""
    factors = Counter(
        gt[key][0] / lq[key][0] if lq[key][0] else 0.0 for key in gt.keys() & lq.keys() if min(lq[key]) > 0
    )
    best = max(factors, key=lambda factor: factors[factor], default=0.0)
    return int(best) if best >= 1 and best == int(best) else None


def check_sizes(of: str, gt: Mapping[str, Shape], lq: Mapping[str, Shape], scale: int | None) -> Check:
    """Return whether GT and LQ have the same keys, and each GT is ``scale`` times its LQ."""
    check = Check(of, "keys and sizes", facts={"scale": scale})
    for key in sorted(gt.keys() ^ lq.keys()):
        check.wrong(key, "without LQ" if key in gt else "without GT")
    if scale is None:
        check.wrong("", "most sizes fit no whole scale; say which it is with --scale")
    else:
        for key in sorted(gt.keys() & lq.keys()):
            high, low = gt[key], lq[key]
            if high[:2] != (low[0] * scale, low[1] * scale):
                check.wrong(key, f"GT {high[1]}x{high[0]} is not {scale} times LQ {low[1]}x{low[0]}")
    check.end(f"{len(gt)} pairs, x{scale}", "keys without partner, or of a size that does not fit")
    return check


def judge(of: str, measured: Mapping[str, Measured], scale: int) -> Check:
    """One outcome over all pairs that were measured: each is also held against what is usual in the set."""
    check = Check(of, "downsampling")
    kinds = _counted(measured)
    exact = kinds["matlab"] + kinds["uint8"] >= max(kinds["fitted"], 1)
    usual = 0.0 if exact else _usual_difference(measured)
    fitted = {}
    for key, pair in measured.items():
        if pair.kind == "channels":
            check.wrong(key, "red and blue are swapped in LQ")
        elif _is_another_photo(pair, exact, usual):
            check.wrong(key, f"LQ shows another photo, or lies more than {REACH * scale} pixels off")
        elif pair.kind == "fitted":
            fitted[key] = pair
    common, error = (np.zeros(2), 0.0) if exact or not fitted else _common_shift(list(fitted.values()))
    shifted = bool(np.abs(common).max() > max(LEAST_SHIFT, ERRORS * error))
    _note_single_shifts(check, fitted, common if shifted else np.zeros(2), -1.0 if shifted else usual)
    difference = float(np.mean([pair.difference for pair in measured.values()])) if measured else 0.0
    check.facts = {
        "pairs": len(measured),
        "matlab_bicubic": kinds["matlab"],
        "matlab_uint8": kinds["uint8"],
        "another_downsampling": kinds["fitted"],
        "no_shift_can_be_told": kinds["flat"] + kinds["unlike"],
        "mean_difference": difference,
        "shift": {"x": float(common[0]), "y": float(common[1]), "error": error},
    }
    found = _fine(kinds, difference)
    if shifted:
        check.state = State.WRONG
        found = f"LQ is shifted: {_words(common)} (standard error {error:.2f}){_hint(common, scale)}"
    elif check.state is State.OK and (not exact or kinds["fitted"]):
        check.state = State.NOTE
    check.text = f"{check.count} of {len(measured)} pairs do not fit; {found}" if check.count else found
    return check


def made_kind(measured: Mapping[str, Measured]) -> str | None:
    """Return the one kind of MATLAB's bicubic that LQ is in all pairs, or None."""
    kinds = _counted(measured)
    for name, kind in (("matlab", MATLAB_BICUBIC), ("uint8", MATLAB_UINT8)):
        if measured and kinds[name] == len(measured):
            return kind
    return None


def _counted(measured: Mapping[str, Measured]) -> Counter[str]:
    """Return the pairs of each kind; one that fits both of MATLAB's, as flat ones do, counts as the others do."""
    kinds = Counter(pair.kind for pair in measured.values())
    either = sum(pair.either for pair in measured.values())
    if kinds["uint8"] > kinds["matlab"] - either:
        kinds["matlab"] -= either
        kinds["uint8"] += either
    return kinds


def _usual_difference(measured: Mapping[str, Measured]) -> float:
    """Return the median over the pairs that resemble each other, in levels; infinite if none does."""
    usual = [pair.apart for pair in measured.values() if pair.kind in ("matlab", "uint8", "fitted")]
    if not usual:
        return 0.0 if any(pair.kind == "unlike" for pair in measured.values()) else math.inf
    return float(np.median(usual))


def _is_another_photo(pair: Measured, exact: bool, usual: float) -> bool:
    """Beside pairs that are MATLAB's bicubic all that is far off is wrong; degraded ones differ and resemble anyway."""
    if pair.kind in ("matlab", "uint8", "other"):
        return pair.kind == "other"
    if exact:
        return pair.apart >= UNLIKE and not pair.convincing
    if pair.kind == "flat":  # only its colour can be compared
        return pair.apart > max(UNLIKE, 4 * usual)
    return pair.kind == "unlike" and pair.resemblance < RESEMBLANCE_IN_NOISE and pair.apart > max(UNLIKE, 3 * usual)


def _note_single_shifts(
    check: Check, fitted: Mapping[str, Measured], common: NDArray[np.float64], usual: float
) -> None:
    """Pairs whose shift is another than the common one, and which differ more than is usual for it."""
    away = {key: float(np.abs(np.array([pair.x, pair.y]) - common).max()) for key, pair in fitted.items()}
    in_errors = {key: away[key] / max(pair.error, FLOOR) for key, pair in fitted.items()}
    most = ERRORS_OF_ONE[0]
    if fitted and usual != 0:  # beside exact pairs nothing is usual
        most = float(np.clip(10 * np.median(list(in_errors.values())), *ERRORS_OF_ONE))
    for key, pair in fitted.items():
        if away[key] > LEAST_SHIFT_OF_ONE and in_errors[key] > most and pair.apart > usual:
            check.wrong(key, f"shifted: {_words(np.array([pair.x, pair.y]))}")


def _common_shift(pairs: list[Measured]) -> tuple[NDArray[np.float64], float]:
    """Return the weighted median of the pairs' shifts, (x, y), and its standard error."""
    shifts = np.array([(pair.x, pair.y) for pair in pairs])  # (N, 2)
    weights = 1 / (np.array([pair.error for pair in pairs]) ** 2 + FLOOR**2)
    median = np.array([_weighted_median(shifts[:, axis], weights) for axis in (0, 1)])
    spread = max(_weighted_median(np.abs(shifts[:, axis] - median[axis]), weights) for axis in (0, 1))
    effective = weights.sum() ** 2 / np.square(weights).sum()
    # By the estimates' own errors, and by how far they lie apart; a median is 1.25 times less exact than a mean.
    return median, 1.25 * max(1 / math.sqrt(weights.sum()), 1.48 * spread / math.sqrt(effective))


def _weighted_median(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order[np.searchsorted(total, total[-1] / 2)]])


def _fine(kinds: Counter[str], difference: float) -> str:
    parts = []
    if kinds["matlab"]:
        parts.append(f"MATLAB's bicubic within 1 level in {kinds['matlab']} pairs")
    if kinds["uint8"]:
        parts.append(f"MATLAB's bicubic on uint8 ({MATLAB_UINT8}) within 1 level in {kinds['uint8']} pairs")
    if kinds["fitted"]:
        parts.append(f"another downsampling in {kinds['fitted']} (mean difference {difference:.2f} levels)")
    if untold := kinds["flat"] + kinds["unlike"]:
        parts.append(f"{untold} of which no shift can be told")
    return ", ".join(parts) or "no pair could be compared"


def _words(shift: NDArray[np.float64]) -> str:
    """Return what a shift (x, y) means.

    Example:
        >>> _words(np.array([1.5, -0.25]))
        "LQ's content lies 1.50 GT pixels further right and 0.25 further up than GT's"
    """
    x, y = (round(float(value), 2) for value in shift)
    parts = [f"{abs(x):.2f} {'right' if x > 0 else 'left'}"] if x else []
    parts += [f"{abs(y):.2f} {'down' if y > 0 else 'up'}"] if y else []
    parts = [
        part.replace(" ", " GT pixels further " if number == 0 else " further ") for number, part in enumerate(parts)
    ]
    return f"LQ's content lies {' and '.join(parts)} than GT's"


def _hint(shift: NDArray[np.float64], scale: int) -> str:
    half = (scale - 1) / 2
    if np.abs(shift - half).max() < 0.15 + 0.02 * scale:
        return (
            f", as where every {scale}th pixel is taken ([::{scale}], OpenCV's INTER_NEAREST); resize with antialiasing"
        )
    return "; make LQ again from the same crops"
