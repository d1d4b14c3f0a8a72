"""The options of each model class: its own keys at the top of the file, its keys under `train`, its losses."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from gramgan_plugin.config.keys import Key
from gramgan_plugin.steps.terms import BLOCKS, EXTRA_TERMS, PENALTY, PENALTY_FORM


@dataclass(frozen=True)
class Model:
    """The options of a model class.

    Attributes:
        what: the description, one line.
        train: keys of ``train``.
        forms: block of ``train`` -> the forms of loss (see ``steps.terms.FORMS``) that the model accepts there.
        discriminator: ``none``, ``optional`` or ``needed``.
        top: its own keys at the top of the file.
    """

    what: str
    train: Mapping[str, Key]
    forms: Mapping[str, frozenset[str]]
    discriminator: str
    top: Mapping[str, Key] = field(default_factory=dict)


def _loss(what: str, needed: str = "") -> Key:
    return Key("component", what, needed=needed, of="loss")


_COMMON = {
    "total_iter": Key("whole", "number of iterations", needed="always", least=1),
    "warmup_iter": Key("whole", "iterations of BasicSR's linear warm-up; -1 for none", default=-1, least=-1),
    "adapt_channels": Key("flag", "a gray network may start one of colours, and the reverse", default=False),
    "ema_decay": Key("number", "decay of the averaged weights; 0 for none", default=0, least=0, below=1),
    "tf32": Key("flag", "GPUs multiply float32 in TF32: faster, with 10 bits of mantissa", default=True),
    "optim_g": Key("component", "the generator's optimizer: any of torch.optim", needed="always", of="optimizer"),
    "scheduler": Key("component", "the schedule of the learning rates", needed="always", of="scheduler"),
    "pixel_opt": _loss("content loss of SR and GT"),
    "perceptual_opt": _loss("perceptual loss on VGG features"),
}
_GAN = {
    "optim_d": Key("component", "the discriminator's optimizer", of="optimizer"),
    "gan_opt": _loss("adversarial loss"),
    "net_d_iters": Key("whole", "G is trained in every net_d_iters-th iteration", default=1, least=1),
    "net_d_init_iters": Key("whole", "iterations at the start in which only D is trained", default=0, least=0),
}
_NEEDED_GAN = {
    **_GAN,
    "optim_d": Key("component", "the discriminator's optimizer", needed="always", of="optimizer"),
    "gan_opt": _loss("adversarial loss", needed="always"),
}
_GRAMGAN = {
    **_COMMON,
    **_GAN,
    "precision": Key(
        "text",
        "precision of the networks: fp32, bf16, fp16 (with a gradient scaler), or auto, which times them on the run's "
        "networks; losses and weights stay in float32",
        default="fp32",
        choices=("fp32", "bf16", "fp16", "auto"),
    ),
    "channels_last": Key("switch", "networks in the channels-last memory layout; auto times it", default=False),
    "compile": Key("flag", "compile networks by torch.compile; worth it in runs of many iterations", default=False),
    "compile_networks": Key("texts", "which networks to compile", default=["g", "d", "vgg"], choices=("g", "d", "vgg")),
    "compile_mode": Key(
        "text", "torch.compile's mode", default="default", choices=("default", "max-autotune-no-cudagraphs")
    ),
    "compile_backend": Key("text", "torch.compile's backend", default="inductor"),
    "accumulate": Key(
        "whole",
        "process a batch in so many equal parts, to save memory; BatchNorm and the relativistic mean are computed for "
        "each part",
        default=1,
        least=1,
    ),
    "clip_grad_norm_g": Key("number", "largest norm of the generator's gradient; null for none", least=0),
    "clip_grad_norm_d": Key("number", "largest norm of the discriminator's gradient; null for none", least=0),
    "max_grad_ratio": Key(
        "number",
        "a gradient whose norm is more than so many times the median of the last 64 is scaled down to that median",
        least=1.5,
    ),
    "max_nonfinite": Key(
        "whole",
        "stop after so many skipped iterations in a row; an iteration with non-finite losses or gradients is skipped",
        default=50,
        least=1,
    ),
    "gram_patch_opt": _loss("patch-wise texture loss"),
    "disc_perceptual_opt": _loss("discriminator perceptual loss: D's features of SR against those of GT"),
    "back_projection_opt": _loss("back-projection loss: SR, reduced by MATLAB bicubic, against LQ"),
    "ldl_opt": _loss("loss on pixels that look like artifacts (LDL); needs the averaged weights"),
    "d_penalty_opt": _loss("penalty on the gradient of the discriminator at images"),
    "net_d_every": Key("whole", "D is trained in every net_d_every-th iteration", default=1, least=1),
    "instance_noise": Key(
        "section",
        "noise on GT and SR before D sees them, which fades linearly",
        keys={
            "sigma": Key("number", "its deviation at the start, for images in [0, 1]", needed="always", least=0),
            "until": Key("whole", "the iteration in which it has faded", needed="always", least=1),
        },
    ),
    "balance": Key(
        "section",
        "weights of the terms that follow from their values",
        keys={
            "type": Key(
                "text", "softmax: the larger a term, the larger its weight", default="softmax", choices=("softmax",)
            ),
            "temperature": Key(
                "number", "divides the values; small ones leave the largest term alone", default=0.1, least=1e-6
            ),
            "detach": Key("flag", "the weights are constants", default=True),
        },
    ),
    "extra_terms": Key("section", "further losses of SR and GT: a block for each, under any name", open=True),
}

_IMAGE = frozenset({"image", "texture"})
_HOST_FORMS = {"pixel_opt": _IMAGE, "perceptual_opt": frozenset({"image_pair"})}
_HOST_GAN_FORMS = {**_HOST_FORMS, "gan_opt": frozenset({"logits"}), "ldl_opt": _IMAGE}


def _round(suffix: str, which: str) -> dict[str, Key]:
    """Return the keys of one of Real-ESRGAN's two rounds of degradation."""
    return {
        f"resize_prob{suffix}": Key("numbers", f"{which} round: probability of enlarging, reducing, neither", least=0),
        f"resize_range{suffix}": Key("numbers", "smallest and largest factor", least=0),
        f"gaussian_noise_prob{suffix}": Key("number", "probability of Gaussian noise; else Poisson noise", least=0),
        f"noise_range{suffix}": Key("numbers", "range of the Gaussian noise's deviation, in 8-bit levels", least=0),
        f"poisson_scale_range{suffix}": Key("numbers", "range of the Poisson noise's scale", least=0),
        f"gray_noise_prob{suffix}": Key("number", "probability of grey noise", least=0),
        f"jpeg_range{suffix}": Key("numbers", "range of JPEG qualities", least=0),
    }


_REAL = {
    "high_order_degradation": Key("flag", "make LQ from GT; false for data sets of pairs", default=True),
    **_round("", "first"),
    "second_blur_prob": Key("number", "probability of a second blur", least=0),
    **_round("2", "second"),
    "gt_size": Key("whole", "side of the GT crop in pixels", least=1),
    "queue_size": Key("whole", "pairs held back to mix batches; a multiple of the batch size", default=180, least=1),
}
# The keys that are needed if LQ is made from GT.
DEGRADATION = (frozenset(_REAL) | {"gt_usm"}) - {"high_order_degradation", "queue_size"}


def _usm(what: str, default: bool | None = None) -> Key:
    return Key("flag", f"{what} sees sharpened GT", default=default, needed="train" if default is None else "")


MODELS: dict[str, Model] = {
    "GramGANModel": Model(
        "any sum of losses, with or without a discriminator",
        _GRAMGAN,
        {name: frozenset(block.forms) for name, block in {**BLOCKS, "extra_terms": EXTRA_TERMS}.items()}
        | {PENALTY: frozenset({PENALTY_FORM})},
        "optional",
        {
            "l1_gt_usm": _usm("the content loss", default=False),
            "percep_gt_usm": _usm("the perceptual loss", default=False),
            "gram_gt_usm": _usm("the texture loss", default=False),
            "gan_gt_usm": _usm("the discriminator", default=False),
            **_REAL,
        },
    ),
    "SRModel": Model("BasicSR's: a generator alone", _COMMON, _HOST_FORMS, "none"),
    "SwinIRModel": Model("BasicSR's: SRModel for SwinIR", _COMMON, _HOST_FORMS, "none"),
    "SRGANModel": Model("BasicSR's: SRGAN", {**_COMMON, **_NEEDED_GAN}, _HOST_GAN_FORMS, "needed"),
    "ESRGANModel": Model("BasicSR's: ESRGAN", {**_COMMON, **_NEEDED_GAN}, _HOST_GAN_FORMS, "needed"),
    "RealESRNetModel": Model(
        "BasicSR's: a generator alone, LQ made on the GPU",
        _COMMON,
        _HOST_FORMS,
        "none",
        {"gt_usm": Key("flag", "sharpen GT"), **_REAL},
    ),
    "RealESRGANModel": Model(
        "BasicSR's: Real-ESRGAN, LQ made on the GPU",
        {**_COMMON, **_NEEDED_GAN, "ldl_opt": _loss("loss on pixels that look like artefacts")},
        _HOST_GAN_FORMS,
        "needed",
        {
            "l1_gt_usm": _usm("the content loss"),
            "percep_gt_usm": _usm("the perceptual loss"),
            "gan_gt_usm": _usm("the discriminator"),
            **_REAL,
        },
    ),
}
