"""Warn about problems of a running training, found in the values that it logs anyway."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from gramgan_plugin.steps.terms import BLOCKS

# A lost balance is reported only after it has lasted: in healthy short runs D's loss is below 0.1 after a hundred
# iterations, and for single batches below 0.001 after some hundreds, while SR still improves.
BALANCE_LINES, BALANCE_ITERATIONS = 5, 2000
WON_ACCURACY = 0.99  # a batch has few images: one that D gets wrong shows that it can still learn
WON_LOSS = 1e-3  # real and fake together; logits about 7 apart, where the loss's slope is a thousandth
WON_GAP = 0.5  # between mean logits, if no accuracy is logged: it is 1 where least squares has won, else far more
# D that guesses: the losses of constant logits.
GUESSING_LOSSES = (math.log(2), 2 * math.log(2))  # relativistic (half the sum of two terms); vanilla
GUESSING_BAND = 0.01  # logits that differ at all raise the loss: by an eighth of their variance
GUESSING_ACCURACY = 0.2  # around 0.5: for a guessed batch of 16 the accuracy is rarely further away
GUESSING_GAP = 0.1
# Photos have detail nearly everywhere: in training the mask keeps about nine tenths of the pixels.
BLIND_SHARE = 0.05
BLIND_LINES, BLIND_ITERATIONS = 5, 500
# SR's contrast divided by GT's is 0.9 to 1.2 in each batch, except in the first hundred iterations from random weights,
# where it can be anything.
FLAT_CONTRAST, BLOWN_CONTRAST = 0.5, 2.0
CONTRAST_LINES, CONTRAST_ITERATIONS = 5, 500
# At the start a discriminator perceptual term of 40 times the others together is normal.
DRIVING_RATIO = 100.0
DRIVING_LINES, DRIVING_ITERATIONS = 5, 500
# fp16's scaler normally skips one step in 2,000, and a dozen in a row when it starts.
SKIPPED_SHARE = 0.01
SKIPPED_LINES, SKIPPED_ITERATIONS = 3, 100
# A content loss varies by a factor of a few from batch to batch; after a larger jump, what was learnt is lost.
EXPLODED_RATIO = 10.0
USUAL_LINES, FEW_LINES = 10, 3  # log lines whose median is the usual loss; of few lines the largest
# A problem is over after so many log lines in a row without it; before that it is not reported again.
LINES_TO_FORGET = 3


class Health:
    """Check a run's logged values, and report each problem once until it is over.

    Absent and non-finite values are skipped, so that any model can be checked: BasicSR's models log only D's losses and
    mean logits, which suffice to see that D has won.

    Args:
        train: the section ``train`` of the options; advice leaves out what is on already.

    Example:
        >>> health, log = Health(), {"l_g_gan": 0.05, "l_d_real": 1e-5, "l_d_fake": 1e-5, "d_accuracy": 1.0}
        >>> lines = [line for iteration in range(100, 5000, 100) for line in health.check(iteration, log)]
        >>> len(lines), lines[0][:37]
        (1, 'D has won: since iteration 100 it sep')
    """

    def __init__(self, train: Mapping[str, Any] | None = None) -> None:
        self.last = 0
        self.losses: deque[float] = deque(maxlen=USUAL_LINES)
        self.problems = [
            _Problem(partial(_won, train or {}), BALANCE_LINES, BALANCE_ITERATIONS),
            _Problem(_guessing, BALANCE_LINES, BALANCE_ITERATIONS),
            _Problem(_blind, BLIND_LINES, BLIND_ITERATIONS),
            _Problem(_flat, CONTRAST_LINES, CONTRAST_ITERATIONS),
            _Problem(_blown_up, CONTRAST_LINES, CONTRAST_ITERATIONS),
            _Problem(_driven, DRIVING_LINES, DRIVING_ITERATIONS),
            _Problem(_skipping, SKIPPED_LINES, SKIPPED_ITERATIONS),
            _Problem(_exploded, 1, 0),
        ]

    def check(self, iteration: int, log: Mapping[str, float]) -> list[str]:
        """Return the warnings for the values of a logging iteration, one line each.

        Args:
            iteration: 1-based, larger each time.
            log: of ``get_current_log``.
        """
        seen = {key: float(value) for key, value in log.items() if math.isfinite(value)}
        seen["iterations"] = float(iteration - self.last)
        self.last = iteration
        if self.losses:
            seen["usual_loss"] = median(self.losses) if len(self.losses) >= FEW_LINES else max(self.losses)
        self.losses += [loss for loss in [_content_loss(seen)] if loss is not None]
        return [line for problem in self.problems for line in problem.check(iteration, seen)]


Values = Mapping[str, float]


@dataclass
class _Problem:
    """A problem of a run, reported once it has lasted for some log lines and iterations.

    Attributes:
        find: returns the message, with ``{since}`` in it, or None if the values are fine.
        lines: log lines in a row that must show the problem.
        iterations: between the first and the last of them, at least.
    """

    find: Callable[[Values], str | None]
    lines: int
    iterations: int
    seen: int = 0
    absent: int = 0
    since: int = 0
    reported: bool = False

    def check(self, iteration: int, log: Values) -> list[str]:
        message = self.find(log)
        if message is None:
            self.seen, self.absent = 0, self.absent + 1
            self.reported = self.reported and self.absent < LINES_TO_FORGET
            return []
        if self.seen == 0:
            self.since = iteration
        self.seen, self.absent = self.seen + 1, 0
        if self.reported or self.seen < self.lines or iteration - self.since < self.iterations:
            return []
        self.reported = True
        return [message.format(since=f"{self.since:,d}")]


# What keeps D from winning: the option, and what to write.
AGAINST_WINNING = {
    "d_penalty_opt": "train.d_penalty_opt: {type: GradientPenalty, kind: r1}",
    "instance_noise": "train.instance_noise",
    "net_d_every": "train.net_d_every: 2",
}


def _won(train: Mapping[str, Any], log: Values) -> str | None:
    loss = _loss_of_d(log)
    # The loss of a Wasserstein critic is below 0 when it separates SR from GT, and near 0 when it does not.
    if loss is None or not 0 <= loss < WON_LOSS:
        return None
    gap = _gap(log)
    if log.get("d_accuracy", 1.0) < WON_ACCURACY or ("d_accuracy" not in log and (gap is None or gap < WON_GAP)):
        return None
    return (
        "D has won: since iteration {since} it separates SR from GT every time, and its loss is "
        f"{loss:.1e}. It no longer learns, so G no longer improves by it. {_advice(train)}lower train.optim_d.lr, "
        "leave train.net_d_iters at 1, or train the L1 stage for longer; if this comes back, check for a difference "
        "that G cannot remove, such as LQ and GT that do not match in place or colour"
    )


def _advice(train: Mapping[str, Any]) -> str:
    """Return the options that are not on, which would help; braces are doubled, since the message is formatted."""
    off = [text for key, text in AGAINST_WINNING.items() if train.get(key) in (None, 1)]
    listed = ", ".join(off).replace("{", "{{").replace("}", "}}")
    return f"Turn on {listed}, " if off else "Strengthen train.d_penalty_opt, "


def _guessing(log: Values) -> str | None:
    loss, gap = _loss_of_d(log), _gap(log)
    if loss is None or gap is None or abs(gap) > GUESSING_GAP:
        return None
    if abs(log.get("d_accuracy", 0.5) - 0.5) > GUESSING_ACCURACY:
        return None
    if all(abs(loss - guess) > GUESSING_BAND for guess in GUESSING_LOSSES):
        return None
    return (
        "D is guessing: since iteration {since} its outputs for SR and GT are alike, and its loss stays at "
        f"{loss:.2f}, so that train.gan_opt gives G no direction. Raise train.optim_d.lr; check that mask_share in "
        "metrics.jsonl is not near 0"
    )


def _blind(log: Values) -> str | None:
    share = log.get("mask_share", 1.0)
    if share >= BLIND_SHARE:
        return None
    return (
        f"D sees almost nothing: since iteration {{since}} the mask hides all but {share:.1%} of the pixels. Lower "
        "train.gan_opt.mask.threshold, or set train.gan_opt.mask: ~ to train without one"
    )


def _flat(log: Values) -> str | None:
    contrast = log.get("sr_contrast", 1.0)
    if contrast >= FLAT_CONTRAST:
        return None
    return (
        f"the output has gone flat: since iteration {{since}} SR has about {contrast:.0%} of GT's contrast. "
        "Lower train.optim_g.lr, give train.pixel_opt more weight, and start again from the last checkpoint before"
    )


def _blown_up(log: Values) -> str | None:
    contrast = log.get("sr_contrast", 1.0)
    if contrast <= BLOWN_CONTRAST:
        return None
    return (
        f"the output has blown up: since iteration {{since}} SR has about {contrast:.1f} times GT's contrast. "
        "Lower train.optim_g.lr, give train.pixel_opt more weight, and start again from the last checkpoint before"
    )


def _driven(log: Values) -> str | None:
    norms = {key.removeprefix("grad_g_"): value for key, value in log.items() if key.startswith("grad_g_")}
    if not norms:
        return None
    name = max(norms, key=lambda key: norms[key])
    others = math.fsum(norms.values()) - norms[name]
    # Terms whose gradient is 0 are off.
    if others <= 0 or norms[name] <= DRIVING_RATIO * others:
        return None
    return (
        f"one term dominates: since iteration {{since}} the gradient of l_g_{name} at SR is more than "
        f"{DRIVING_RATIO:.0f} times all the others' together ({norms[name]:.1e} against {others:.1e}), which have "
        f"almost no effect. Lower train.{_block(name)}.loss_weight"
    )


def _skipping(log: Values) -> str | None:
    skipped, iterations = log.get("skipped_steps", 0.0), log["iterations"]
    if iterations <= 0 or skipped <= SKIPPED_SHARE * iterations:
        return None
    advice = "set train.precision: bf16, or lower" if "loss_scale" in log else "lower"
    return (
        "steps are skipped too often, because of non-finite values: since iteration {since} "
        f"about {skipped / iterations:.0%} of them; {advice} the learning rates"
    )


def _exploded(log: Values) -> str | None:
    usual, peak = log.get("usual_loss", math.inf), log.get("loss_peak", _content_loss(log) or 0.0)
    if usual <= 0 or peak <= EXPLODED_RATIO * usual:  # a sum with a Wasserstein term can be negative
        return None
    where = f"at iteration {log['loss_peak_iter']:,.0f}" if "loss_peak_iter" in log else "by iteration {since}"
    return (
        f"the loss has exploded: {where} it was {peak:.3g}, {peak / usual:,.0f} times what is usual ({usual:.3g}). "
        "What G had learnt may be lost even if the loss comes down again: resume from a checkpoint before, with a "
        "lower train.optim_g.lr (OneCycleLR: max_lr), train.clip_grad_norm_g, or train.max_grad_ratio: 10, which "
        "scales such gradients down"
    )


def _content_loss(log: Values) -> float | None:
    """Return the content loss, or the sum of G's terms without the adversarial one, whose level says nothing."""
    for key in ("l_g_pix", "l_pix"):
        if key in log:
            return log[key]
    terms = [value for key, value in log.items() if key.startswith("l_g_") and key != "l_g_gan"]
    return math.fsum(terms) if terms else None


def _loss_of_d(log: Values) -> float | None:
    """Return the sum of D's losses, or None while G is not trained: it is normal that D wins then."""
    trains_g = any(key.startswith("l_g_") for key in log)
    if not trains_g or "l_d_real" not in log or "l_d_fake" not in log:
        return None
    return log["l_d_real"] + log["l_d_fake"]


def _gap(log: Values) -> float | None:
    return log["out_d_real"] - log["out_d_fake"] if {"out_d_real", "out_d_fake"} <= log.keys() else None


def _block(name: str) -> str:
    """Return the option block of the term that logs ``l_g_NAME``."""
    blocks = {block.key: name for name, block in BLOCKS.items()}
    return blocks.get(f"l_g_{name}", f"extra_terms.{name}")
