"""Read the options of networks, losses, metrics, optimizers and schedules from their constructors' signatures."""

import inspect
import re
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gramgan_plugin.config import annotations
from gramgan_plugin.config.keys import KINDS, Key, is_number
from gramgan_plugin.models.components import Component
from gramgan_plugin.utils.text import shown_value

# BasicSR has no annotations. These are the meanings of its parameter names, in any class.
UPSTREAM: dict[str, Key] = {
    "num_in_ch": Key("whole", "channels in", least=1),
    "num_out_ch": Key("whole", "channels out", least=1),
    "num_feat": Key("whole", "features of the trunk, or of the first stage", least=1),
    "num_block": Key("whole", "blocks", least=0),
    "num_grow_ch": Key("whole", "growth of the dense blocks", least=1),
    "num_conv": Key("whole", "convolutions", least=0),
    "scale": Key("whole", "enlargement", least=1),
    "upscale": Key("whole", "enlargement", least=1),
    "input_size": Key("whole", "side of the input in pixels", least=1),
    "window_size": Key("whole", "side of the attention windows", least=1),
    "skip_connection": Key("flag", "connect its stages of equal size"),
    "loss_weight": Key("number", "weight in the sum of losses"),
    "reduction": Key("text", "over the pixels: mean, sum or none"),
    "gan_type": Key("text", "vanilla, lsgan, wgan, wgan_softplus or hinge"),
    "real_label_val": Key("number", "label of real images"),
    "fake_label_val": Key("number", "label of images made by G"),
    "layer_weights": Key("section", "layer: weight"),
    "vgg_type": Key("text", "vgg11, vgg13, vgg16 or vgg19"),
    "use_input_norm": Key("flag", "normalise by ImageNet's mean and deviation"),
    "range_norm": Key("flag", "true for images in [-1, 1]"),
    "perceptual_weight": Key("number", "weight in the sum of losses"),
    "style_weight": Key("number", "weight of the style loss in the sum of losses"),
    "criterion": Key("text", "l1 or fro"),
    "eps": Key("number", "rounds the corner of |x| at 0"),
    "crop_border": Key("whole", "pixels left out at each side", least=0),
    "input_order": Key("text", "HWC or CHW", choices=("HWC", "CHW")),
    "test_y_channel": Key("flag", "on luma, as papers report it"),
    "convert_to": Key("text", "y: luma; gray"),
    "milestones": Key("wholes", "iterations at which the rate is multiplied by gamma", least=0),
    "gamma": Key("number", "factor at each milestone"),
    "restarts": Key("wholes", "iterations of restarts", least=0),
    "periods": Key("wholes", "iterations of each cycle", least=1),
    "restart_weights": Key("numbers", "peak of each cycle, relative to lr"),
    "eta_min": Key("number", "floor of the rate", least=0),
}
# Numbers that may also be a pair.
SIZES = frozenset({"img_size", "patch_size"})


@dataclass(frozen=True)
class Parameter:
    """An option of a component.

    Attributes:
        name: the keyword.
        key: its declaration, for a parameter without annotation whose name is in ``UPSTREAM``; else None.
        annotation: its type, or None.
        default: its default, or ``inspect.Parameter.empty``.
        what: the description, one line; may be empty.
        whole_floats: whether a float such as ``5e3`` counts as a whole number.
    """

    name: str
    key: Key | None
    annotation: Any
    default: Any
    what: str
    whole_floats: bool

    @property
    def needed(self) -> bool:
        """Whether it has no default."""
        return self.default is inspect.Parameter.empty

    @property
    def expected(self) -> str:
        """The expected kind of value, for messages; empty if not known."""
        if self.annotation is not None:
            return annotations.words(self.annotation)
        kind = type(self.default)
        if self.key is not None or kind in (tuple, list):
            return KINDS[self.key.kind][0] if self.key is not None else "a list"
        return annotations.WORDS.get(kind, "") if self.default is not None else ""

    def mistake(self, value: Any) -> str | None:
        """Return what is wrong with a value, as the end of a message, or None."""
        if self.annotation is not None:
            if annotations.fits(self.annotation, value, whole_floats=self.whole_floats):
                return None
            return f"expected {annotations.words(self.annotation)}, not {shown_value(value)}"
        if value is None and (self.default is None or isinstance(self.default, str)):
            return None
        if value is None and self.expected:
            return f"expected {self.expected}, not null"
        if self.key is not None:
            if self.key.kind == "whole" and isinstance(value, float) and not self.whole_floats:
                return f"expected a whole number without a point, not {shown_value(value)}"
            if self.key.kind == "flag" and type(value) is int and value in (0, 1):
                return None
            return self.key.mistake(value)
        return self._differs_from_default(value)

    def _differs_from_default(self, value: Any) -> str | None:
        default = self.default
        if isinstance(default, bool):
            same = isinstance(value, bool) or (type(value) is int and value in (0, 1))
        elif is_number(default):
            same = is_number(value) or (isinstance(value, list) and self.name in SIZES)
        elif isinstance(default, str):
            same = isinstance(value, str)
        elif isinstance(default, tuple | list):
            same = isinstance(value, list)
        else:
            return None
        return None if same else f"expected {self.expected}, not {shown_value(value)}"


def parameters_of(component: Component) -> dict[str, Parameter]:
    """Return the options of a component, by name.

    Raises:
        OptionError: if its type is unknown.
    """
    constructor = component.constructor()
    return describe(constructor, component.kind, component.parameters())


def describe(
    constructor: Callable[..., Any], kind: str, signature: Mapping[str, inspect.Parameter]
) -> dict[str, Parameter]:
    """Return the options of a constructor, by name.

    Args:
        constructor: class or function.
        kind: as ``Component.kind``.
        signature: the parameters that an option file may set.
    """
    hints, texts = _hints(constructor), _texts(constructor)
    lenient = kind in ("optimizer", "scheduler")
    found = {}
    for name, parameter in signature.items():
        default = parameter.default
        if kind == "optimizer" and name == "lr":  # BasicSR's models need it
            default = inspect.Parameter.empty
        annotation = hints.get(name)
        key = UPSTREAM.get(name) if annotation is None else None
        what = texts.get(name, "") or (key.what if key else "")
        found[name] = Parameter(name, key, annotation, default, what, lenient)
    return found


@lru_cache(maxsize=256)
def _hints(constructor: Callable[..., Any]) -> dict[str, Any]:
    # A constructor that passes its options on may declare their annotations in its signature.
    stated = {p.name: p.annotation for p in inspect.signature(constructor).parameters.values()}
    stated = {name: hint for name, hint in stated.items() if hint is not inspect.Parameter.empty}
    function = constructor.__init__ if isinstance(constructor, type) else constructor  # type: ignore[misc]
    try:
        return stated | typing.get_type_hints(function)
    except Exception:  # a third party's annotations may use names that are not imported
        return {}


@lru_cache(maxsize=256)
def _texts(constructor: Callable[..., Any]) -> dict[str, str]:
    """Return the description of each argument from a docstring of ours."""
    if not (getattr(constructor, "__module__", None) or "").startswith("gramgan_plugin."):
        return {}
    docs = [inspect.getdoc(one) or "" for one in (constructor, getattr(constructor, "options_class", object))]
    sections = re.findall(r"^Args:\n(.*?)(?=^\S|\Z)", "\n".join(docs), re.DOTALL | re.MULTILINE)
    entries = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w|^$|\Z)", "\n".join(sections), re.DOTALL | re.MULTILINE)
    return {name: " ".join(text.split()).removesuffix(".").replace("``", "`") for name, text in entries}
