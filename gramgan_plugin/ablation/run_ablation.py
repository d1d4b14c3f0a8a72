"""Check all runs of an ablation, train those that are not finished, and write the report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gramgan_plugin.ablation.ablation_file import Ablation, AblationRun, read_ablation
from gramgan_plugin.ablation.ablation_report import write_ablation_report
from gramgan_plugin.ablation.run_queue import Outcome, RunQueue, gpus
from gramgan_plugin.ablation.run_states import check_unchanged, has_checkpoint, is_finished
from gramgan_plugin.checkpoints.foreign_networks import load_foreign
from gramgan_plugin.checkpoints.generators import recognise
from gramgan_plugin.config.file_checks import check_all
from gramgan_plugin.config.resolve import resolve_options
from gramgan_plugin.errors import OptionError, Preempted, UserError
from gramgan_plugin.evaluation.benchmark_sets import benchmark_sets
from gramgan_plugin.evaluation.metrics import choose_metrics
from gramgan_plugin.models.components import Component
from gramgan_plugin.training.run_folder import open_run_folder
from gramgan_plugin.training.signals import stop_signals
from gramgan_plugin.utils.interruptions import TerminatedError, sigterm_raises

LINES = 50  # of mistakes in a message


def run_ablation(
    file: str,
    *,
    out: Path | None = None,
    data: Path | None = None,
    plugins: Sequence[str] = (),
    log: Callable[[str], object] = print,
    warn: Callable[[str], object] = print,
) -> tuple[Path, str, list[str]]:
    """Train all runs of an ablation file that are not finished, and write the report of those that are.

    Args:
        file: the ablation file, found as ``-opt`` finds option files.
        out: folder of the report; results/NAME-ablation if None.
        data: folder of benchmark sets, instead of the file's ``test.data``.
        plugins: modules for the ``--plugin`` of each training; they must be imported here already.
        log: called with each line of progress.
        warn: called with each warning, one line.

    Returns:
        The folder of the report, its table in Markdown, and a line for each problem: runs that have failed, images
        that could not be measured.

    Raises:
        UserError: for a mistake in the file, in a variant or in the sets, found before any training begins; if a
            finished run was trained with other options; if no run has succeeded.
        Preempted: if a signal has stopped the trainings; the next call resumes them.
    """
    ablation = read_ablation(file, data)
    out = Path("results") / f"{ablation.name}-ablation" if out is None else out
    done = frozenset(run.name for run in ablation.runs if is_finished(run))
    _check_variants(ablation, done, warn)
    check_unchanged(ablation.runs)
    _check_test(ablation)
    with open_run_folder(out, keep=True):
        devices: list[str | None] = [None]
        if any(run.options.get("num_gpu") != 0 for run in ablation.runs):
            devices = list(gpus()) or devices
        queue = RunQueue(ablation.runs, done, out / "runs", devices, plugins, log)
        with stop_signals() as request:
            outcomes = queue.train(request)
        finished = [name for name, outcome in outcomes.items() if outcome.state == "finished"]
        if request.signal is not None and len(finished) < len(outcomes):
            raise Preempted(
                f"stopped by {request.signal}; {len(finished)} of {len(outcomes)} runs are finished; run the same "
                "command again to resume"
            )
        problems = _unfinished(ablation, outcomes, out)
        if not finished:
            raise NothingTrained("\n".join([*problems, "no run is finished, so there is no report"]))
        try:
            with sigterm_raises():
                text, others = write_ablation_report(out, ablation, outcomes)
        except TerminatedError as error:
            raise Preempted("stopped by SIGTERM; all runs are trained; run the same command for the report") from error
    return out, text, [*problems, *others]


class NothingTrained(UserError):  # noqa: N818  (not an error of the input)
    """All runs have failed."""

    exit_code = 3


def _unfinished(ablation: Ablation, outcomes: Mapping[str, Outcome], out: Path) -> list[str]:
    lines = []
    for run in ablation.runs:
        outcome = outcomes[run.name]
        if outcome.state != "finished":
            reason = outcome.reason or f"its process was {outcome.state} by a signal"
            lines.append(f"{run.name} is missing: {reason}; {out / 'runs' / run.name}.log has all that it printed")
    return lines


def _check_variants(ablation: Ablation, done: frozenset[str], warn: Callable[[str], object]) -> None:
    """Check the options of each variant as ``basicsr check`` does; what all variants share is reported once.

    Raises:
        OptionError: one line per problem, each with the variant and the key.
    """
    errors, warnings = dict[str, list[str]](), dict[str, list[str]]()
    variants = ablation.of_variant()
    for variant, runs in variants.items():
        found: list[str] = []
        for line in _problems(runs, done, found.append):
            errors.setdefault(line, []).append(variant)
        for line in dict.fromkeys(found):
            warnings.setdefault(line, []).append(variant)

    def named(lines: Mapping[str, list[str]]) -> list[str]:
        return [
            f"{'all variants' if len(names) == len(variants) else f'variants.{name}'}: {line}"
            for line, names in lines.items()
            for name in (names[:1] if len(names) == len(variants) else names)
        ]

    for line in named(warnings):
        warn(line)
    if errors:
        lines = named(errors)
        more = [f"and {len(lines) - LINES} more mistakes"] if len(lines) > LINES else []
        raise OptionError("\n".join(lines[:LINES] + more))


def _problems(runs: list[AblationRun], done: frozenset[str], warn: Callable[[str], object]) -> list[str]:
    """Return the mistakes in the options of a variant, whose runs differ only in their seed."""
    options, train = runs[0].options, runs[0].options.get("train")
    if not train:
        return ["train: missing; an ablation trains"]
    if options.get("num_gpu", "auto") not in ("auto", 0, 1):
        return ["num_gpu: a run has one GPU, and others run beside it on further ones; write auto, 1 or 0"]
    begun = [run.name in done or has_checkpoint(run) for run in runs]
    try:
        check_all(
            options, warn, is_train=True, with_files=not all(run.name in done for run in runs), resumed=all(begun)
        )
        resolve_options(options, is_train=True)
    except OptionError as error:
        return str(error).splitlines()
    return []


def _check_test(ablation: Ablation) -> None:
    """Check the benchmark sets and metrics, and that the benchmark can measure the networks together.

    Raises:
        UserError: if a set is missing, or a metric or network cannot be measured here.
    """
    checked: list[Any] = []
    scale = ablation.runs[0].options.get("scale", 1)
    for run in ablation.runs:
        network, own = run.options["network_g"], run.options.get("scale", 1)
        if own != scale:
            raise OptionError(
                f"variants.{run.variant}: scale: {own}, others have {scale}; compare networks of one scale"
            )
        if network not in checked:
            checked.append(network)
            problem = _unreadable(network)
            if problem is not None:
                raise OptionError(f"variants.{run.variant}: network_g: the benchmark cannot read it: {problem}")
    benchmark_sets(ablation.data, int(scale), ablation.sets)
    unavailable = choose_metrics(ablation.metrics or [])[1]
    if unavailable:
        raise UserError("\n".join(f"test.metrics: {name}: {reason}" for name, reason in unavailable.items()))


def _unreadable(network: Mapping[str, Any]) -> str | None:
    """Return why weights of a network would not be recognised, or None."""
    options = {key: value for key, value in network.items() if key != "type"}
    with torch.random.fork_rng(devices=[]):
        state = Component(("network_g",), "arch", network).constructor()(**options).state_dict()
    if recognise(state) is None:
        try:
            load_foreign(state)
        except ValueError as error:
            return str(error)
    return None
