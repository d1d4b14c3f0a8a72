"""Check a set of GT and LQ pairs, from the measurements of the single pairs."""

import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from gramgan_plugin.functional.matlab_bicubic import MATLAB_BICUBIC, MATLAB_UINT8
from gramgan_plugin.prepare.verify.alignment import REACH, UNLIKE, Measured
from gramgan_plugin.prepare.verify.database import Shape
from gramgan_plugin.prepare.verify.outcome import Check, State

# In GT pixels. Photos resized without a shift, with any noise or blur, gave a common shift below a third of these; the
# smallest shift of a wrong resampling is half a pixel.
LEAST_SHIFT = 0.2  # a whole set is shifted if its shift is above this ...
ERRORS = 5.0  # ... and above so many standard errors
LEAST_SHIFT_OF_ONE = 0.35  # a single pair is shifted if its shift is above this ...
ERRORS_OF_ONE = (8.0, 16.0)  # ... and above ten times the set's usual number of its standard errors, in these bounds
FLOOR = 0.02  # minimum standard error of a single estimate
RESEMBLANCE_IN_NOISE = 0.5  # in a degraded set, a pair below this shows another photo


def guess_scale(gt: Mapping[str, Shape], lq: Mapping[str, Shape]) -> int | None:
    """Return the integer ratio of heights that most pairs have, or None."""
    factors = Counter(
        gt[key][0] / lq[key][0] if lq[key][0] else 0.0 for key in gt.keys() & lq.keys() if min(lq[key]) > 0
    )
    best = max(factors, key=lambda factor: factors[factor], default=0.0)
    return int(best) if best >= 1 and best == int(best) else None


def check_sizes(of: str, gt: Mapping[str, Shape], lq: Mapping[str, Shape], scale: int | None) -> Check:
    """Check that GT and LQ have the same keys, and that each GT is ``scale`` times its LQ."""
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
    """Return one check over all measured pairs; each pair is also compared with the rest of the set."""
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
    """Return the kind of MATLAB's bicubic that the LQ of all pairs has, or None."""
    kinds = _counted(measured)
    for name, kind in (("matlab", MATLAB_BICUBIC), ("uint8", MATLAB_UINT8)):
        if measured and kinds[name] == len(measured):
            return kind
    return None


def _counted(measured: Mapping[str, Measured]) -> Counter[str]:
    """Count the pairs of each kind; a pair that fits both of MATLAB's kinds counts as the others do."""
    kinds = Counter(pair.kind for pair in measured.values())
    either = sum(pair.either for pair in measured.values())
    if kinds["uint8"] > kinds["matlab"] - either:
        kinds["matlab"] -= either
        kinds["uint8"] += either
    return kinds


def _usual_difference(measured: Mapping[str, Measured]) -> float:
    """Return the median difference of the pairs that resemble each other, in levels; infinite if none does."""
    usual = [pair.apart for pair in measured.values() if pair.kind in ("matlab", "uint8", "fitted")]
    if not usual:
        return 0.0 if any(pair.kind == "unlike" for pair in measured.values()) else math.inf
    return float(np.median(usual))


def _is_another_photo(pair: Measured, exact: bool, usual: float) -> bool:
    """Return whether LQ shows another photo: any large difference in an exact set, low resemblance in others."""
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
    """Report pairs whose shift differs from the common one by more than is usual in the set."""
    away = {key: float(np.abs(np.array([pair.x, pair.y]) - common).max()) for key, pair in fitted.items()}
    in_errors = {key: away[key] / max(pair.error, FLOOR) for key, pair in fitted.items()}
    most = ERRORS_OF_ONE[0]
    if fitted and usual != 0:  # exact pairs have no usual difference
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
    # From the estimates' standard errors and their spread; a median's error is 1.25 times that of a mean.
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
    if unknown := kinds["flat"] + kinds["unlike"]:
        parts.append(f"{unknown} whose shift cannot be determined")
    return ", ".join(parts) or "no pair could be compared"


def _words(shift: NDArray[np.float64]) -> str:
    """Return a shift (x, y) in words.

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
