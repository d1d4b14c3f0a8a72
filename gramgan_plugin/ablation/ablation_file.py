"""Read an ablation file: a base, variants of it, seeds, and what the trained networks are measured on."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gramgan_plugin.config.findings import Findings
from gramgan_plugin.config.keys import Key, is_whole
from gramgan_plugin.config.load import load_options, merge
from gramgan_plugin.config.resolve import check_name
from gramgan_plugin.errors import OptionError
from gramgan_plugin.evaluation.benchmark_models import BICUBIC
from gramgan_plugin.evaluation.benchmark_sets import GT
from gramgan_plugin.evaluation.metrics import LABELS
from gramgan_plugin.utils.io import expanded, real_path
from gramgan_plugin.utils.sections import section
from gramgan_plugin.utils.text import did_you_mean, shown_value

KEYS = {
    "name": Key("text", "the runs are NAME-VARIANT-sSEED; the base's name if left out"),
    "base": Key("paths", "an option file, or several to merge", needed="always"),
    "common": Key("section", "overrides of all variants"),
    "variants": Key("section", "name -> what it changes of the base", needed="always"),
    "seeds": Key("wholes", "manual_seed of the runs; the base's if left out", least=0, below=2**32),
    "one_seed": Key("texts", "of these variants one run each, with the first seed"),
    "iterations": Key("whole", "train.total_iter; intervals and schedule are changed in proportion", least=1),
    "start_from": Key("path", "path.pretrain_network_g of all runs"),
    "test": Key("section", "what the trained networks are measured on"),
    "baseline": Key("text", "the variant that the others are compared with; the first if left out"),
}
TEST = {
    "data": Key("path", "a folder of sets, as for `basicsr benchmark --data`"),
    "sets": Key("texts", "of these sets alone"),
    "metrics": Key("texts", "what to measure", choices=tuple(LABELS)),
}
# Options that count iterations; those of schedules are also in lists.
INTERVALS = {
    ("val",): ("val_freq",),
    ("logger",): ("print_freq", "save_checkpoint_freq"),
    ("train",): ("warmup_iter", "net_d_init_iters"),
    ("train", "instance_noise"): ("until",),
    ("train", "scheduler"): (
        *("period", "periods", "milestones", "warmup_iter", "T_max", "T_0", "step_size", "step_size_up"),
        *("step_size_down", "total_iters", "total_steps"),
    ),
}
OF_A_RUN = ("name", "manual_seed")
START = "start"
TAKEN = {GT: "the originals", BICUBIC: "LQ enlarged by it", START: "the weights that runs start from"}


@dataclass(frozen=True)
class AblationRun:
    """One training.

    Attributes:
        name: of its folder in experiments/.
        variant: the name of its variant.
        seed: its ``manual_seed``.
        options: as an option file has them.
    """

    name: str
    variant: str
    seed: int
    options: dict[str, Any]

    @property
    def folder(self) -> Path:
        """Its folder."""
        return Path("experiments") / self.name

    @property
    def weights(self) -> Path:
        """The networks after the last iteration."""
        return self.folder / "models/net_g_latest.pth"


@dataclass(frozen=True)
class Ablation:
    """What an ablation file asks for.

    Attributes:
        name: the beginning of the runs' names.
        runs: all seeds of the first variant, then of the second, ...
        changes: variant -> what it changes of the base.
        baseline: the variant that the others are compared with.
        data: the folder of sets.
        sets: of these sets alone; None for all.
        metrics: what to measure; None for the benchmark's default.
    """

    name: str
    runs: tuple[AblationRun, ...]
    changes: dict[str, dict[str, Any]]
    baseline: str
    data: Path
    sets: list[str] | None
    metrics: list[str] | None

    def of_variant(self) -> dict[str, list[AblationRun]]:
        """Return variant -> its runs."""
        found: dict[str, list[AblationRun]] = {}
        for run in self.runs:
            found.setdefault(run.variant, []).append(run)
        return found

    def starts(self) -> dict[str, AblationRun]:
        """Return label -> the first run that starts from them, for each of the weights that runs start from."""
        found: dict[tuple[Path, Any], AblationRun] = {}
        for run in self.runs:
            paths = section(run.options, "path")
            if paths.get("pretrain_network_g") is not None:
                weights = real_path(expanded(str(paths["pretrain_network_g"])))
                found.setdefault((weights, paths.get("param_key_g") or "params"), run)
        return {(f"{START} of {run.variant}" if len(found) > 1 else START): run for run in found.values()}

    def label(self, run: AblationRun) -> str:
        """Return a run's name in tables: its variant, with the seed if there are several."""
        several = len({one.seed for one in self.runs}) > 1
        return f"{run.variant} s{run.seed}" if several else run.variant


def read_ablation(name: str, data: Path | None = None) -> Ablation:
    """Read an ablation file. The options of its runs are not checked.

    Args:
        name: found as ``-opt`` finds option files.
        data: the folder of sets, instead of ``test.data``.

    Raises:
        OptionError: one line per problem.
    """
    content = load_options([name])
    _check(content, data)
    bases = content["base"]
    base = load_options(bases if isinstance(bases, list) else [bases])
    base = with_iterations(base, content.get("iterations"))
    if content.get("start_from") is not None:
        base = merge(base, {"path": {"pretrain_network_g": content["start_from"]}})
    base = merge(base, content.get("common") or {})
    prefix: Any = content.get("name") or base.get("name")
    check_name(prefix, "name")
    own = base.get("manual_seed")
    seeds = [int(seed) for seed in content.get("seeds") or [own if is_whole(own) else 0]]
    runs = []
    for variant, changes in content["variants"].items():
        for seed in seeds[:1] if variant in (content.get("one_seed") or []) else seeds:
            run = f"{prefix}-{variant}-s{seed}"
            check_name(run, f"variants.{variant}")
            options = merge(base, changes or {}) | {"name": run, "manual_seed": seed}
            runs.append(AblationRun(run, variant, seed, options))
    test = section(content, "test")
    return Ablation(
        prefix,
        tuple(runs),
        {variant: changes or {} for variant, changes in content["variants"].items()},
        content.get("baseline") or next(iter(content["variants"])),
        expanded(data or test["data"]),
        test.get("sets"),
        test.get("metrics"),
    )


def _check(content: Mapping[str, Any], data: Path | None) -> None:
    found = Findings()
    _check_keys(content, KEYS, "", found)
    test = section(content, "test")
    _check_keys(test, TEST, "test", found)
    if data is None and test.get("data") is None:
        found.error("test.data", "missing; name a folder of benchmark sets, here or by --data")
    variants = section(content, "variants")
    if not variants:
        found.error("variants", "missing; give at least one, such as `full: ~`")
    for name, changes in variants.items():
        try:
            check_name(name, "variants")
        except OptionError as error:
            found.catch(error)
        if name in TAKEN:
            found.error(f"variants.{name}", f"the report has this label for {TAKEN[name]}; choose another name")
        if changes is not None and not isinstance(changes, Mapping):
            found.error(f"variants.{name}", "expected options as in an option file, or null for none")
        for key in OF_A_RUN:
            if key in section(changes):
                found.error(f"variants.{name}.{key}", "each run has its own; use `seeds` and another name of a variant")
    found.raise_errors()  # what follows needs values of the declared types
    seeds, baseline = content.get("seeds") or [], content.get("baseline")
    if len(seeds) != len(set(seeds)):
        found.error("seeds", "one of them is given twice")
    for name in content.get("one_seed") or []:
        if name not in variants:
            found.error("one_seed", f"{shown_value(name)} is not a variant{did_you_mean(name, variants, '')}")
    if baseline is not None and baseline not in variants:
        found.error("baseline", f"{shown_value(baseline)} is not a variant{did_you_mean(baseline, variants, '')}")
    found.raise_errors()


def _check_keys(block: Mapping[str, Any], known: Mapping[str, Key], where: str, found: Findings) -> None:
    prefix = f"{where}." if where else ""
    for name, value in block.items():
        if name not in known:
            found.unknown(where, name, known)
        elif (mistake := known[name].mistake(value)) is not None and not (value is None and known[name].needed):
            found.error(f"{prefix}{name}", mistake)
    for name, key in known.items():
        if key.needed and block.get(name) is None:
            found.error(f"{prefix}{name}", f"missing; {key.what}")


def with_iterations(options: dict[str, Any], iterations: int | None) -> dict[str, Any]:
    """Return options of a shorter or longer training; what counts iterations is changed in proportion, rounded up.

    Args:
        options: of a training.
        iterations: the new ``train.total_iter``; None changes nothing.

    >>> with_iterations({"train": {"total_iter": 600}, "val": {"val_freq": 300}}, 100)
    {'train': {'total_iter': 100}, 'val': {'val_freq': 50}}
    """
    if iterations is None:
        return options
    before = section(options, "train").get("total_iter")
    changed = options
    if is_whole(before) and before > 0:
        for path, names in INTERVALS.items():
            block = section(options, *path)
            scaled = {name: _scaled(block[name], iterations / before) for name in names if name in block}
            for key in reversed(path):
                scaled = {key: scaled}
            changed = merge(changed, scaled) if block else changed
    return merge(changed, {"train": {"total_iter": int(iterations)}})


def _scaled(value: Any, ratio: float) -> Any:
    if isinstance(value, list):
        return [_scaled(member, ratio) for member in value]
    # -1 and 0 mean "none"; 1e-9 keeps 300 * (100 / 600) at 50.
    return math.ceil(value * ratio - 1e-9) if is_whole(value) and value > 0 else value
