"""Warnings in words about a training at work, read from the values that it logs anyway."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from gramgan_plugin.steps.terms import BLOCKS

# A lost balance is told only when it has held for a while: in healthy short runs D's loss is below 0.1 after a hundred
# iterations, and for single batches below 0.001 after some hundreds, while SR still gets better.
BALANCE_LOOKS, BALANCE_ITERATIONS = 5, 2000
WON_ACCURACY = 0.99  # a batch has few images: one that D gets wrong shows that it has something left to learn
WON_LOSS = 1e-3  # real and fake half together; logits about 7 apart, where the loss's slope is a thousandth
WON_GAP = 0.5  # between mean logits, where there is no accuracy: least squares wins at 1, the others far above it
# D that guesses: both forms of the loss at what a constant answer gives.
GUESSING_LOSSES = (math.log(2), 2 * math.log(2))  # relativistic, whose halves are summed halved; vanilla
GUESSING_BAND = 0.01  # logits that differ at all raise the loss: by an eighth of their variance
GUESSING_ACCURACY = 0.2  # to each side of a half: a batch of 16 that is guessed is seldom further off
GUESSING_GAP = 0.1
# Images of photos have detail nearly everywhere: in training the mask keeps some nine tenths of the pixels.
BLIND_SHARE = 0.05
BLIND_LOOKS, BLIND_ITERATIONS = 5, 500
# SR's contrast by GT's is 0.9 to 1.2 batch by batch once training is under way, and anything in its first hundred
# iterations from random weights.
FLAT_CONTRAST, BLOWN_CONTRAST = 0.5, 2.0
CONTRAST_LOOKS, CONTRAST_ITERATIONS = 5, 500
# A discriminator perceptual term of 40 times the others together is ordinary at the start.
DRIVING_RATIO = 100.0
DRIVING_LOOKS, DRIVING_ITERATIONS = 5, 500
# fp16's scaler skips one step in 2,000 while all is well, and a dozen in a row when it starts.
SKIPPED_SHARE = 0.01
SKIPPED_LOOKS, SKIPPED_ITERATIONS = 3, 100
# A content loss varies by a factor of a few from batch to batch; one that jumps beyond that has left what was learnt.
EXPLODED_RATIO = 10.0
USUAL_LOOKS, FEW_LOOKS = 10, 3  # log lines that say what is usual; of few lines their largest
# A trouble has gone away when it was absent this often in a row; until then it is not told again.
LOOKS_TO_FORGET = 3


class Health:
    """Looks at a run's logged values and says what is wrong with them, once for each trouble until it is gone.

    A value that is absent or no number is not judged, so that any model can be looked at: BasicSR's models log D's
    losses and mean logits only, which suffice to see that D has won.

    Example:
        >>> health, log = Health(), {"l_g_gan": 0.05, "l_d_real": 1e-5, "l_d_fake": 1e-5, "d_accuracy": 1.0}
        >>> told = [line for iteration in range(100, 5000, 100) for line in health.look(iteration, log)]
        >>> len(told), told[0][:40]
        (1, 'D has won: since iteration 100 it tells ')
    """

    def __init__(self) -> None:
        self.last = 0
        self.losses: deque[float] = deque(maxlen=USUAL_LOOKS)
        self.troubles = [
            _Trouble(_won, BALANCE_LOOKS, BALANCE_ITERATIONS),
            _Trouble(_guessing, BALANCE_LOOKS, BALANCE_ITERATIONS),
            _Trouble(_blind, BLIND_LOOKS, BLIND_ITERATIONS),
            _Trouble(_flat, CONTRAST_LOOKS, CONTRAST_ITERATIONS),
            _Trouble(_blown_up, CONTRAST_LOOKS, CONTRAST_ITERATIONS),
            _Trouble(_driven, DRIVING_LOOKS, DRIVING_ITERATIONS),
            _Trouble(_skipping, SKIPPED_LOOKS, SKIPPED_ITERATIONS),
            _Trouble(_exploded, 1, 0),
        ]

    def look(self, iteration: int, log: Mapping[str, float]) -> list[str]:
        """Take the values of a logging iteration, and return the warnings that are due, one line each.

        Args:
            iteration: 1-based, larger each time.
            log: what ``get_current_log`` gives.
        """
        seen = {key: float(value) for key, value in log.items() if math.isfinite(value)}
        seen["iterations"] = float(iteration - self.last)
        self.last = iteration
        if self.losses:
            seen["usual_loss"] = median(self.losses) if len(self.losses) >= FEW_LOOKS else max(self.losses)
        self.losses += [loss for loss in [_content_loss(seen)] if loss is not None]
        return [line for trouble in self.troubles for line in trouble.look(iteration, seen)]


Values = Mapping[str, float]


@dataclass
class _Trouble:
    """One thing that can go wrong: told when it has held for some looks and iterations in a row.

    Attributes:
        find: what is wrong with the values, as words with ``{since}`` in them; None if nothing is.
        looks: in how many looks in a row it has to be there.
        iterations: how many iterations have to lie between the first and the last of them.
    """

    find: Callable[[Values], str | None]
    looks: int
    iterations: int
    seen: int = 0
    absent: int = 0
    since: int = 0
    told: bool = False

    def look(self, iteration: int, log: Values) -> list[str]:
        words = self.find(log)
        if words is None:
            self.seen, self.absent = 0, self.absent + 1
            self.told = self.told and self.absent < LOOKS_TO_FORGET
            return []
        if self.seen == 0:
            self.since = iteration
        self.seen, self.absent = self.seen + 1, 0
        if self.told or self.seen < self.looks or iteration - self.since < self.iterations:
            return []
        self.told = True
        return [words.format(since=f"{self.since:,d}")]


def _won(log: Values) -> str | None:
    loss = _loss_of_d(log)
    # The loss of a Wasserstein critic is below 0 when it tells them apart, and near 0 when it does not.
    if loss is None or not 0 <= loss < WON_LOSS:
        return None
    gap = _gap(log)
    if log.get("d_accuracy", 1.0) < WON_ACCURACY or ("d_accuracy" not in log and (gap is None or gap < WON_GAP)):
        return None
    return (
        "D has won: since iteration {since} it tells SR from GT every time, and its loss is "
        f"{loss:.1e}. It learns no more, and what it tells G gets no better. Lower train.optim_d.lr, leave "
        "train.net_d_iters at 1, or train the L1 stage for longer; if it comes back, look for a difference that G "
        "cannot mend, such as LQ and GT that do not match in place or colour"
    )


def _guessing(log: Values) -> str | None:
    loss, gap = _loss_of_d(log), _gap(log)
    if loss is None or gap is None or abs(gap) > GUESSING_GAP:
        return None
    if abs(log.get("d_accuracy", 0.5) - 0.5) > GUESSING_ACCURACY:
        return None
    if all(abs(loss - guess) > GUESSING_BAND for guess in GUESSING_LOSSES):
        return None
    return (
        "D is guessing: since iteration {since} it answers alike for SR and GT, and its loss stays at "
        f"{loss:.2f}, so that train.gan_opt gives G no direction. Raise train.optim_d.lr; see that mask_share in "
        "metrics.jsonl is not near 0"
    )


def _blind(log: Values) -> str | None:
    share = log.get("mask_share", 1.0)
    if share >= BLIND_SHARE:
        return None
    return (
        f"D sees next to nothing: since iteration {{since}} the mask hides all but {share:.1%} of the pixels. Lower "
        "train.gan_opt.mask.threshold, or set train.gan_opt.mask: ~ to train without one"
    )


def _flat(log: Values) -> str | None:
    contrast = log.get("sr_contrast", 1.0)
    if contrast >= FLAT_CONTRAST:
        return None
    return (
        f"the output has gone flat: since iteration {{since}} SR has {contrast:.0%} of GT's contrast or about so. "
        "Lower train.optim_g.lr, give train.pixel_opt more weight, and start again from the last checkpoint before"
    )


def _blown_up(log: Values) -> str | None:
    contrast = log.get("sr_contrast", 1.0)
    if contrast <= BLOWN_CONTRAST:
        return None
    return (
        f"the output has blown up: since iteration {{since}} SR has {contrast:.1f} times GT's contrast or about so. "
        "Lower train.optim_g.lr, give train.pixel_opt more weight, and start again from the last checkpoint before"
    )


def _driven(log: Values) -> str | None:
    norms = {key.removeprefix("grad_g_"): value for key, value in log.items() if key.startswith("grad_g_")}
    if not norms:
        return None
    name = max(norms, key=lambda key: norms[key])
    others = math.fsum(norms.values()) - norms[name]
    # Terms without any gradient are off, and there is nothing that they could be drowned by.
    if others <= 0 or norms[name] <= DRIVING_RATIO * others:
        return None
    return (
        f"one term drives everything: since iteration {{since}} the gradient of l_g_{name} at SR is more than "
        f"{DRIVING_RATIO:.0f} times all the others' together ({norms[name]:.1e} against {others:.1e}), which have no "
        f"say beside it. Lower train.{_block(name)}.loss_weight"
    )


def _skipping(log: Values) -> str | None:
    skipped, iterations = log.get("skipped_steps", 0.0), log["iterations"]
    if iterations <= 0 or skipped <= SKIPPED_SHARE * iterations:
        return None
    advice = "set train.precision: bf16, or lower" if "loss_scale" in log else "lower"
    return (
        "steps are skipped again and again for values that are not finite: since iteration {since} "
        f"about {skipped / iterations:.0%} of them; {advice} the learning rates"
    )


def _exploded(log: Values) -> str | None:
    usual, peak = log.get("usual_loss", math.inf), log.get("loss_peak", _content_loss(log) or 0.0)
    if peak <= EXPLODED_RATIO * usual:
        return None
    where = f"at iteration {log['loss_peak_iter']:,.0f}" if "loss_peak_iter" in log else "by iteration {since}"
    return (
        f"the loss has exploded: {where} it was {peak:.3g}, {peak / usual:,.0f} times what is usual ({usual:.3g}). "
        "What G had learnt may be lost even if the loss comes down again: resume from a checkpoint before, with a "
        "lower train.optim_g.lr (OneCycleLR: max_lr), train.clip_grad_norm_g, or train.max_grad_ratio: 10, which holds "
        "such steps back"
    )


def _content_loss(log: Values) -> float | None:
    """The content loss, or without one the sum of G's terms."""
    for key in ("l_g_pix", "l_pix"):
        if key in log:
            return log[key]
    terms = [value for key, value in log.items() if key.startswith("l_g_")]
    return math.fsum(terms) if terms else None


def _loss_of_d(log: Values) -> float | None:
    """Both halves of D's loss, or None while G stands still: D then wins without meaning anything by it."""
    trains_g = any(key.startswith("l_g_") for key in log)
    if not trains_g or "l_d_real" not in log or "l_d_fake" not in log:
        return None
    return log["l_d_real"] + log["l_d_fake"]


def _gap(log: Values) -> float | None:
    return log["out_d_real"] - log["out_d_fake"] if {"out_d_real", "out_d_fake"} <= log.keys() else None


def _block(name: str) -> str:
    """The option block of the term that logs ``l_g_NAME``."""
    blocks = {block.key: name for name, block in BLOCKS.items()}
    return blocks.get(f"l_g_{name}", f"extra_terms.{name}")
