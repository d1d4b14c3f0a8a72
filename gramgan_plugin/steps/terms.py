"""The loss terms of the generator: each picks what its loss needs out of the iteration's passes and gives a scalar.

A loss module takes tensors and knows no step; a term stands between the two. Which term is decided by the ``form`` of
the loss's class, so that a new loss needs no code here: one class, and one option block.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from gramgan_plugin.errors import OptionError
from gramgan_plugin.functional.matlab_bicubic import matlab_bicubic
from gramgan_plugin.steps.step_state import StepState
from gramgan_plugin.utils.precision import at_least_float32


class Adversarial(Protocol):
    """What a step asks of an adversarial loss; ``MaskedRaGANLoss`` is one."""

    def mask(self, gt: Tensor, lq: Tensor | None = None) -> Tensor | None: ...
    def generator(self, real: Tensor, fake: Tensor) -> Tensor: ...
    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]: ...


class Relativistic(nn.Module):
    """BasicSR's ``GANLoss`` used as its ``ESRGANModel`` uses it: relativistic average, without a mask.

    Args:
        loss: called as ``loss(logits, target_is_real, is_disc=...)``.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def mask(self, gt: Tensor, lq: Tensor | None = None) -> None:
        """Return no mask."""

    def generator(self, real: Tensor, fake: Tensor) -> Tensor:
        """Return the mean of the two halves of G's loss; the gradient flows through the mean of the fakes too."""
        real, fake = at_least_float32(real, fake)
        of_real = self.loss(real - fake.mean(), False, is_disc=False)
        of_fake = self.loss(fake - real.mean(), True, is_disc=False)
        return (of_real + of_fake) / 2

    def discriminator(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Return the two halves of D's loss, each already halved; the means carry no gradient."""
        real, fake = at_least_float32(real, fake)
        of_real = self.loss(real - fake.mean().detach(), True, is_disc=True) / 2
        of_fake = self.loss(fake - real.mean().detach(), False, is_disc=True) / 2
        return of_real, of_fake


class Term(nn.Module):
    """A weighted term of G's loss: ``term(state) -> scalar``, logged under ``key``.

    Attributes:
        taps: the features of D that it reads.
        running_statistics: whether it reads D with BatchNorm's running statistics.
        reads_average: whether it reads SR of the averaged weights.
    """

    taps: tuple[str | int, ...] = ()
    running_statistics = False
    reads_average = False

    def __init__(self, key: str, loss: Any) -> None:
        super().__init__()
        self.key = key
        self.loss = loss


class ImageTerm(Term):
    """``loss(sr, gt)``; BasicSR's ``PerceptualLoss``, which answers (perceptual, style), counts as their sum."""

    def forward(self, state: StepState) -> Tensor:
        value = self.loss(state.sr, state.batch.target(self.key))
        if not isinstance(value, tuple):
            return value
        parts = [part for part in value if part is not None]
        return torch.stack([part.reshape(()) for part in parts]).sum()


class LqTerm(Term):
    """``loss(sr, gt, lq)``."""

    def forward(self, state: StepState) -> Tensor:
        return self.loss(state.sr, state.batch.target(self.key), state.batch.lq)


class AverageTerm(Term):
    """``loss(sr, gt, sr_average)``, with SR of the averaged weights."""

    reads_average = True

    def forward(self, state: StepState) -> Tensor:
        return self.loss(state.sr, state.batch.target(self.key), state.sr_average)


class TextureTerm(Term):
    """``loss(sr, gt, theta, draw=, report=)``: its affine warps and draws are made from (seed, iteration, sample).

    It reports the share of patches that chose each kind of candidate (``gram_original``, ``gram_downsampled``,
    ``gram_affine``, and with a database ``gram_database``), the mean distance to the target (``gram_distance``) and the
    one to GT's patches of the same places (``gram_one_to_one``).
    """

    def forward(self, state: StepState) -> Tensor:
        batch = state.batch
        seed = (batch.manual_seed, batch.iteration)
        target = batch.target(self.key)
        theta, draw = self.loss.random_numbers(target, seed, batch.first_index, batch.stride)
        report: dict[str, Tensor] | None = None if state.report is None else {}
        value: Tensor = self.loss(state.sr, target, theta, draw=draw, report=report)
        if state.report is not None and report is not None:
            name = self.key.removeprefix("l_g_")
            state.report.update({f"{name}_{key}": number for key, number in report.items()})
        return value


class FeaturesTerm(Term):
    """``loss(feats_sr, feats_gt)`` of D's features, which it names by ``taps``."""

    def __init__(self, key: str, loss: Any) -> None:
        super().__init__(key, loss)
        taps = getattr(loss, "taps", None)
        if not isinstance(taps, list | tuple) or not taps:
            raise ValueError(f"{type(loss).__name__} names no features of D; it needs an attribute `taps`, a list")
        self.taps = tuple(taps)
        self.running_statistics = getattr(loss, "bn", "batch") == "running"

    def forward(self, state: StepState) -> Tensor:
        return self.loss(state.features_sr, {name: value.detach() for name, value in state.features_gt.items()})


class AdversarialTerm(Term):
    """G's adversarial loss."""

    def __init__(self, key: str, loss: Any) -> None:
        super().__init__(key, loss if hasattr(loss, "generator") else Relativistic(loss))

    def forward(self, state: StepState) -> Tensor:
        real, fake = state.logits()
        return self.loss.generator(real.detach(), fake)


class BackProjectionTerm(Term):
    """``loss(SR downsampled by MATLAB bicubic, LQ)``: SR must be an image that has this LQ (as in Beby-GAN)."""

    def forward(self, state: StepState) -> Tensor:
        down = state.sr.shape[-1] // state.batch.lq.shape[-1]
        return self.loss(matlab_bicubic(state.sr, down=down), state.batch.lq)


# How losses are called, by their classes' attribute `form`, and the terms that call them so.
FORMS: dict[str, type[Term]] = {
    "image": ImageTerm,  # loss(sr, gt)
    "image_pair": ImageTerm,  # loss(sr, gt) -> (perceptual, style), either of which may be None
    "image_lq": LqTerm,  # loss(sr, gt, lq)
    "image_average": AverageTerm,  # loss(sr, gt, sr_average)
    "texture": TextureTerm,
    "features": FeaturesTerm,
    "gan": AdversarialTerm,  # .mask, .generator, .discriminator
    "logits": AdversarialTerm,  # loss(logits, target_is_real, is_disc=)
}
# What a loss of a form has besides ``forward``.
METHODS = {"texture": ("random_numbers",), "gan": ("mask", "generator", "discriminator")}
# BasicSR's own classes, which have no such attribute. Another loss without one has the first form of its block.
BASICSR_FORMS = {
    "L1Loss": "image",
    "MSELoss": "image",
    "CharbonnierLoss": "image",
    "PerceptualLoss": "image_pair",
    "GANLoss": "logits",
    "MultiScaleGANLoss": "logits",
    "WeightedTVLoss": "other",
}


class Block(NamedTuple):
    """An option block under ``train`` that makes a term: the key that it is logged under, and the forms it takes."""

    key: str
    forms: tuple[str, ...]
    term: type[Term] | None = None  # instead of the form's


_IMAGE = ("image", "texture", "image_pair")
BLOCKS = {
    "pixel_opt": Block("l_g_pix", _IMAGE),
    "perceptual_opt": Block("l_g_percep", _IMAGE),
    "gram_patch_opt": Block("l_g_gram", ("texture",)),
    "disc_perceptual_opt": Block("l_g_dp", ("features",)),
    "gan_opt": Block("l_g_gan", ("gan", "logits")),
    "back_projection_opt": Block("l_g_bp", ("image", "texture"), BackProjectionTerm),
    "ldl_opt": Block("l_g_ldl", ("image_average",)),
}
EXTRA_TERMS = Block("l_g_{}", (*_IMAGE, "image_lq", "image_average"))
# A loss of D alone, beside those of ``gan_opt``: loss(net_d, gt, sr, share).
PENALTY, PENALTY_FORM = "d_penalty_opt", "penalty"
# Options of BasicSR's Real-ESRGAN, and one of ours, that make sharpened GT the target of a block's term. D compares SR
# with the target of gan_opt, and its features are those that disc_perceptual_opt reads.
USM_OPTIONS = {
    "l1_gt_usm": "pixel_opt",
    "percep_gt_usm": "perceptual_opt",
    "gram_gt_usm": "gram_patch_opt",
    "gan_gt_usm": "gan_opt",
}


def form_of(loss: Any) -> str | None:
    """Return the form of a loss, or of its class; None where it does not say."""
    cls = loss if isinstance(loss, type) else type(loss)
    form = getattr(cls, "form", None)
    return form if isinstance(form, str) else BASICSR_FORMS.get(cls.__name__)


def term_blocks(train: Mapping[str, Any]) -> Iterator[tuple[str, Any, Block]]:
    """Yield the blocks of a ``train`` section that make terms: where each stands, its options, what it takes.

    Args:
        train: the section; blocks that are absent or empty are off, and ``extra_terms`` maps a name to the option block
            of any further loss, logged as ``l_g_NAME``.
    """
    for name, block in BLOCKS.items():
        if train.get(name):
            yield f"train.{name}", train[name], block
    extra = train.get("extra_terms")
    for name, options in extra.items() if isinstance(extra, Mapping) else ():
        yield f"train.extra_terms.{name}", options, EXTRA_TERMS._replace(key=f"l_g_{name}")


def term_mistakes(train: Mapping[str, Any], has_discriminator: bool) -> Iterator[tuple[str, str]]:
    """Yield what the blocks of a ``train`` section lack: the key, and what is wrong and what to do.

    Args:
        train: the section.
        has_discriminator: whether there is a ``network_d``.
    """
    blocks = list(term_blocks(train))
    if not blocks:
        yield "train", "no loss is on; give at least one block such as pixel_opt"
    keys: dict[str, str] = {}
    for where, _, block in blocks:
        first = keys.setdefault(block.key, where)
        if first != where:
            yield where, f"would be logged as {block.key}, as {first} is; give it another name"
    needs = [where for where, _, block in blocks if set(block.forms) & {"features", "gan"}]  # what D computes
    if needs and not has_discriminator:
        yield "network_d", f"missing, but {' and '.join(needs)} {'need' if needs[1:] else 'needs'} it"
    if has_discriminator and "train.gan_opt" not in needs:
        yield "train.gan_opt", "missing, so that network_d would not be trained"
    for name in (PENALTY, "instance_noise"):
        if train.get(name) and not has_discriminator:
            yield "network_d", f"missing, but train.{name} needs it"
    reads_average = [where for where, _, block in blocks if block.forms == ("image_average",)]
    if reads_average and not train.get("ema_decay"):
        yield "train.ema_decay", f"missing, but {reads_average[0]} needs the averaged weights; set it, such as 0.999"


def build_terms(train: Mapping[str, Any], build_loss: Callable[[str, Mapping[str, Any]], nn.Module]) -> list[Term]:
    """Build the terms that an option file's ``train`` section asks for.

    Args:
        train: see `term_blocks`.
        build_loss: builds a loss from (where the block stands, the block).

    Returns:
        The terms, in the order of ``BLOCKS``, then the extra ones.

    Raises:
        OptionError: if a loss is of another form than its block takes, or lacks what its form needs.
    """
    terms: list[Term] = []
    for where, options, block in term_blocks(train):
        loss = build_loss(where, options)
        form = form_of(loss) or block.forms[0]
        if form not in block.forms:
            raise OptionError(
                f"{where}.type: {type(loss).__name__} is called as a loss of the form '{form}', and this block takes "
                f"{' or '.join(block.forms)}"
            )
        for method in METHODS.get(form, ()) if block.term is None and form_of(loss) else ():
            if not hasattr(loss, method):
                raise OptionError(f"{where}: {type(loss).__name__} has the form '{form}', but no method `{method}`")
        try:
            terms.append((block.term or FORMS[form])(block.key, loss))
        except ValueError as error:
            raise OptionError(f"{where}: {error}") from error
    return terms
