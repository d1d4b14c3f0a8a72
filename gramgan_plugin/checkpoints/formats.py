"""The formats of the ESRGAN family's generators, declared as data: what each names the layers of BasicSR's networks.

A layer's name is followed by ``.weight``, ``.bias`` or a tensor of BatchNorm. In the names, {b} counts blocks from 0,
{b2} from 2; {r} dense blocks, {c} convolutions and {u} upsampling layers from 1, {u0} from 0. {blocks} and {upsample}
are the numbers of blocks and of upsampling layers. The old architecture numbers all layers in one sequence: {up}, {hr}
and {last} are the places of the last layers (two places follow each upsampling layer's). Where blocks are counted from
2, {after} and {end} are the numbers of the two parts that follow them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

TARGETS = ("basicsr", "original", "old-arch", "mmagic", "safetensors", "onnx")  # of `basicsr convert`
MOST_UPSAMPLE = 5
# Keys under which training code saves averaged weights, and any weights, in the order in which they are tried.
AVERAGED_KEYS = ("params_ema", "params-ema", "g_ema", "net_g_ema", "ema")
WRAPPERS = (
    "params",
    *AVERAGED_KEYS,
    "state_dict",
    "model_state_dict",
    "model",
    "net",
)
GENERATOR_KEYS = ("net_g", "netG", "generator", "g")  # in a file of several networks
AVERAGED = re.compile(r"(^|[_.-])ema([_.-]|$)", re.IGNORECASE)
# Prefixes of one network's tensors in a file of several, averaged weights first.
PREFIXES = ("generator_ema.", "net_g_ema.", "generator.", "netG.", "net_g.", "discriminator.", "netD.", "net_d.")


@dataclass(frozen=True)
class Format:
    """What one program names the layers of a network.

    Attributes:
        name: for `convert_weights` and messages.
        architecture: a key of ``LAYERS``.
        written_by: in words.
        layers: a template for each template of ``LAYERS[architecture]``.
        prefix: of all names in a file.
        wrapper: the key under which the program saves the state dict, or None.
    """

    name: str
    architecture: str
    written_by: str
    layers: tuple[str, ...]
    prefix: str = ""
    wrapper: str | None = None

    def names(self, blocks: int, upsample: int) -> dict[str, str]:
        """Return BasicSR's name of each layer -> this format's, without the prefix."""
        own = LAYERS[self.architecture]
        places = {"blocks": blocks, "hr": 3 * upsample + 2, "last": 3 * upsample + 4}
        places |= {"upsample": upsample, "after": blocks + 2, "end": blocks + 3}

        def counted(place: dict[str, int]) -> dict[str, int]:
            block, up = place.get("b", 0), place.get("u", 0)
            return places | place | {"b2": block + 2, "u0": up - 1, "up": 3 * up}

        return {
            theirs.format(**place): ours.format(**counted(place))
            for theirs, ours in zip(own, self.layers, strict=True)
            for place in _places(self.architecture, theirs, blocks, upsample)
        }


_SRRESNET = (
    *("conv_first", "prelu_first"),
    *("body.{b}.conv1", "body.{b}.bn1", "body.{b}.prelu", "body.{b}.conv2", "body.{b}.bn2"),
    *("conv_body", "bn_body", "upconv{u}", "prelu_up{u}"),
)
# The templates of BasicSR's networks and ours, and the range of {r} and {c} in them.
LAYERS: Mapping[str, tuple[str, ...]] = {
    "RRDBNet": ("conv_first", "body.{b}.rdb{r}.conv{c}", "conv_body", "conv_up{u}", "conv_hr", "conv_last"),
    "MSRResNet": ("conv_first", "body.{b}.conv{c}", "upconv{u}", "conv_hr", "conv_last"),
    "SRResNetBN": (*_SRRESNET, "conv_last"),
    "SRResNetBN (tanh)": (*_SRRESNET, "conv_tanh"),
}
_RANGES = {"RRDBNet": {"r": 3, "c": 5}, "MSRResNet": {"c": 2}}
# Layers of a block, of an upsampling step, and others.
_COUNTS = {"RRDBNet": (15, 1, 4), "MSRResNet": (2, 1, 3), "SRResNetBN": (5, 2, 5), "SRResNetBN (tanh)": (5, 2, 5)}
_KINDS = re.compile(r"\.(weight|bias|running_mean|running_var|num_batches_tracked)$")

_OLD = "model.1.sub.{b}.RDB{r}.conv{c}.0"
FORMATS = (
    Format("mmagic", "RRDBNet", "MMagic or MMEditing", LAYERS["RRDBNet"], "generator.", "state_dict"),
    Format("basicsr", "RRDBNet", "BasicSR", LAYERS["RRDBNet"], wrapper="params"),
    Format(
        "original",
        "RRDBNet",
        "the original ESRGAN repository",
        ("conv_first", "RRDB_trunk.{b}.RDB{r}.conv{c}", "trunk_conv", "upconv{u}", "HRconv", "conv_last"),
    ),
    Format(
        "original (HR_conv)",
        "RRDBNet",
        "a variant of the original ESRGAN repository",
        ("conv_first", "RRDB_trunk.{b}.RDB{r}.conv{c}", "trunk_conv", "upconv{u}", "HR_conv", "conv_last"),
    ),
    Format(
        "old-arch",
        "RRDBNet",
        "the old ESRGAN architecture",
        ("model.0", _OLD, "model.1.sub.{blocks}", "model.{up}", "model.{hr}", "model.{last}"),
    ),
    Format(
        "mmagic",
        "MSRResNet",
        "MMagic or MMEditing",
        ("conv_first", "trunk_net.{b}.conv{c}", "upsample{u}.upsample_conv", "conv_hr", "conv_last"),
        "generator.",
        "state_dict",
    ),
    Format("basicsr", "MSRResNet", "BasicSR", LAYERS["MSRResNet"], wrapper="params"),
    Format(
        "original",
        "MSRResNet",
        "the original ESRGAN repository",
        ("conv_first", "recon_trunk.{b}.conv{c}", "upconv{u}", "HRconv", "conv_last"),
    ),
    Format("basicsr", "SRResNetBN", "BasicSR", LAYERS["SRResNetBN"], wrapper="params"),
    Format("basicsr", "SRResNetBN (tanh)", "BasicSR", LAYERS["SRResNetBN (tanh)"], wrapper="params"),
    Format(  # its convolutions before BatchNorm have no bias; it clips SR to [0, 1], as all that writes images does
        "SRGAN-PyTorch",
        "SRResNetBN",
        "Lornatang/SRGAN-PyTorch",
        (
            *("conv1.0", "conv1.1"),
            *(f"trunk.{{b}}.rcb.{place}" for place in range(5)),
            *("conv2.0", "conv2.1", "upsampling.{u0}.upsample_block.0", "upsampling.{u0}.upsample_block.2", "conv3"),
        ),
        wrapper="state_dict",
    ),
    Format(
        "SRGAN",
        "SRResNetBN (tanh)",
        "leftthomas/SRGAN",
        (
            *("block1.0", "block1.1"),
            *(f"block{{b2}}.{layer}" for layer in ("conv1", "bn1", "prelu", "conv2", "bn2")),
            *("block{after}.0", "block{after}.1", "block{end}.{u0}.conv", "block{end}.{u0}.prelu"),
            "block{end}.{upsample}",
        ),
    ),
)
_BLOCK = re.compile(r"(?:body|RRDB_trunk|model\.1\.sub|recon_trunk|trunk_net|trunk)\.\d+\.|block\d+\.conv1")


def match_format(layers: set[str], prefix: str = "") -> tuple[Format, dict[str, str]] | None:
    """Return the format of a set of layer names and its map to them from BasicSR's names; None if it is not here.

    Args:
        layers: names of `layer_of`, without ``prefix``.
        prefix: which was removed from them.

    Example:
        >>> names = FORMATS[2].names(blocks=2, upsample=1)
        >>> match_format(set(names.values()))[0].written_by, names["body.1.rdb2.conv5"]
        ('the original ESRGAN repository', 'RRDB_trunk.1.RDB2.conv5')
    """
    blocks = len({found[0] for found in map(_BLOCK.match, layers) if found})
    if not blocks:
        return None
    for known in FORMATS:
        if known.prefix not in ("", prefix):
            continue
        in_block, in_step, others = _COUNTS[known.architecture]
        upsample, rest = divmod(len(layers) - in_block * blocks - others, in_step)
        if rest == 0 and 0 <= upsample <= MOST_UPSAMPLE:
            names = known.names(blocks, upsample)
            if set(names.values()) == layers:
                return known, names
    return None


def layer_of(name: str) -> str:
    """Return a tensor's name without its last part: ``.weight``, ``.bias``, or what BatchNorm counts."""
    return _KINDS.sub("", name)


def _places(architecture: str, template: str, blocks: int, upsample: int) -> Iterator[dict[str, int]]:
    counts = {"b": range(blocks), "u": range(1, upsample + 1)}
    counts |= {letter: range(1, most + 1) for letter, most in _RANGES.get(architecture, {}).items()}
    letters = [letter for letter in counts if f"{{{letter}}}" in template]
    for numbers in product(*(counts[letter] for letter in letters)):
        yield dict(zip(letters, numbers, strict=True))
