"""The declared options as a Markdown page (docs/options.md)."""

from collections.abc import Iterator, Mapping
from typing import Any

from gramgan_plugin.config.construct import MASK, MASKED
from gramgan_plugin.config.foreign_words import KEYS, TYPES
from gramgan_plugin.config.keys import KINDS, Key
from gramgan_plugin.config.parameters import Parameter, parameters_of
from gramgan_plugin.config.schema import BETTER, NETWORK_D, SECTIONS, TOP
from gramgan_plugin.config.schema_datasets import DATASETS, LOADER
from gramgan_plugin.config.schema_models import MODELS
from gramgan_plugin.config.schema_texture import FEATURES, TEXTURE
from gramgan_plugin.models.components import Component

INTRODUCTION = """\
# Options
<!-- Written by `basicsr schema --markdown`; a test fails where it differs. -->

Every key that an option file may have. `basicsr check -opt FILE` checks a file, and so do `train` and `test` before
they start. A key that is not listed here is an error; the message shows the nearest name. `basicsr schema` prints the
same for editors. The files in `options/` show the keys in their places; [losses.md](losses.md) explains the losses.

Needed keys have no default; a `-` means that the key may be left out. `basicsr list loss GramPatchLoss` shows any
registered class, also of third parties. Their datasets and models can declare keys in a class attribute `Options`: a
mapping from a key (`train.NAME` for one under `train`) to its description.
"""

# Components that the shipped files use, and similar ones. torch documents its own optimizers and schedules.
SHOWN: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Networks",
        "arch",
        (
            "RRDBNet",
            "MSRResNet",
            "SRResNetBN",
            "SuRGeNet",
            "GramGANDiscriminator",
            "GramGANRealPhotoDiscriminator",
            "SRGANDiscriminator",
            "SuRGeCritic",
            "UNetDiscriminatorSNTaps",
            "VGGStyleDiscriminator",
            "UNetDiscriminatorSN",
        ),
    ),
    (
        "Losses",
        "loss",
        (
            "GramPatchLoss",
            "DiscPerceptualLoss",
            "MaskedRaGANLoss",
            "StandardGANLoss",
            "GradientPenalty",
            "ArtifactMapLoss",
            "FocalFrequencyLoss",
            "WaveletLoss",
            "VGGPerceptualLoss",
            "JensenShannonLoss",
            "GromovWassersteinLoss",
            "L1Loss",
            "MSELoss",
            "CharbonnierLoss",
            "PerceptualLoss",
            "GANLoss",
        ),
    ),
    ("Schedules", "scheduler", ("CosineRestartWarmupLR", "CosineAnnealingRestartLR", "MultiStepLR")),
    ("Metrics", "metric", ("calculate_psnr", "calculate_ssim", "calculate_niqe")),
)

# Options that may be sections with their own keys.
SECTIONS_WITHIN = {"GramPatchLoss": ("features", FEATURES), **dict.fromkeys(MASKED, ("mask", MASK))}

NOTES = {
    "Schedules": "`train.scheduler` accepts these and any of `torch.optim.lr_scheduler`, with torch's arguments.\n\n"
    "`train.optim_g` and `train.optim_d` accept any of `torch.optim`: `type`, `lr` and torch's other arguments.\n",
    "Metrics": f"Under `val.metrics`, each in a block of any name. `better` (`higher` or `lower`): {BETTER.what}.\n",
    "Losses": "The blocks of `train` that end in `_opt`, and those in `train.extra_terms`.\n",
    "Networks": "`basicsr list arch` shows all.\n",
}

OTHER_PROJECTS = """\
## Options of traiNNer-redux and neosr

None of these is an option here; the check reports the equivalent of each. Option files are YAML, not TOML.
"""
KINDS_OF_CLASSES = {"arch": "network", "dataset": "data set", "model": "model"}


def options_page() -> str:
    """Return the page in Markdown."""
    return "\n".join(_parts())


def _parts() -> Iterator[str]:
    yield INTRODUCTION
    yield "## Top of the file\n"
    yield _keys({**TOP, "network_d": NETWORK_D})
    yield "## `datasets.*`\n\nFor every class:\n"
    yield _keys(LOADER)
    for name, keys in DATASETS.items():
        yield f"### {name}\n"
        yield _keys(keys)
    for name, keys in SECTIONS.items():
        yield f"## `{name}`\n"
        yield _keys(keys)
    yield "## `train`, and keys of models at the top of the file\n"
    shown: dict[str, Mapping[str, Key]] = {}
    for name, model in MODELS.items():
        yield f"### {name}\n\n{_sentence(model.what)}\n"
        same = next((other for other, keys in shown.items() if keys == model.train), None)
        shown.setdefault(name, model.train)
        yield f"`train` as for {same}.\n" if same else _keys(model.train)
        if model.top:
            yield "At the top of the file (the degradation's keys are needed where LQ is made from GT):\n"
            yield _keys(model.top)
    for title, kind, names in SHOWN:
        yield f"## {title}\n\n{NOTES[title]}"
        for name in names:
            yield f"### {name}\n"
            declared = TEXTURE if name == "GramPatchLoss" else {}
            yield _parameters(parameters_of(Component(("page",), kind, {"type": name})), declared)
            if name in SECTIONS_WITHIN:
                key, keys = SECTIONS_WITHIN[name]
                yield f"`{key}` as a section:\n"
                yield _keys(keys)
    yield OTHER_PROJECTS
    yield _other_projects()


def _other_projects() -> str:
    lines = ["| there | here |", "|---|---|"]
    for where, keys in KEYS.items():
        prefix = {"": "", "datasets": "datasets.train."}.get(where, f"{where}.")
        for key, what in keys.items():
            if not where or key not in KEYS[""]:  # those under `train` that the top has, too, are shown once
                lines.append(f"| `{prefix}{key}` | {what if isinstance(what, str) else what(None, {})} |")
    for kind, names in TYPES.items():
        lines += [f"| {KINDS_OF_CLASSES[kind]} `{there}` | `{here}` |" for there, here in names.items()]
    return "\n".join(lines) + "\n"


def _keys(keys: Mapping[str, Key]) -> str:
    rows = []
    for name, key in keys.items():
        needed = {"always": "needed", "train": "needed for training"}.get(key.needed)
        rows.append((name, _takes(key), needed or _shown(key.default), key.what))
        for inner, inner_key in key.keys.items():
            takes = ", ".join(map(str, inner_key.choices)) or KINDS[inner_key.kind][0]
            rows.append((f"{name}.{inner}", takes, "needed" if inner_key.needed else "-", inner_key.what))
    return _table(rows)


def _takes(key: Key) -> str:
    takes = ", ".join(map(str, key.choices)) if key.choices else KINDS[key.kind][0]
    takes = f"a list of {takes}" if key.choices and key.kind == "texts" else takes
    return takes + "".join([f", at least {key.least:g}" if key.least is not None else "", _below(key)])


def _below(key: Key) -> str:
    return "" if key.below is None else f", less than {int(key.below)}"


def _parameters(parameters: Mapping[str, Parameter], declared: Mapping[str, Key]) -> str:
    shown = {name: parameter for name, parameter in parameters.items() if name != "last_epoch"}
    return _table(
        (
            name,
            _takes(declared[name]) if name in declared else one.expected or "any",
            "needed" if one.needed else _shown(one.default),
            one.what,
        )
        for name, one in shown.items()
    )


def _table(rows: Any) -> str:
    lines = ["| key | takes | default | what |", "|---|---|---|---|"]
    for name, takes, default, what in rows:
        lines.append(f"| `{name}` | {takes} | {default} | {what.replace('|', chr(92) + '|')} |")
    return "\n".join(lines) + "\n"


def _shown(default: Any) -> str:
    if default is None:
        return "-"
    if isinstance(default, bool):
        return str(default).lower()
    return f"`{list(default) if isinstance(default, tuple) else default}`"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
