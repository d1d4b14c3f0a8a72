"""Checking options before anything is built: every problem at once, each with the key's full path."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gramgan_plugin.errors import OptionError
from gramgan_plugin.registration import did_you_mean, lookup


def check_options(opt: Mapping[str, Any]) -> None:
    """Check the types that an option file names and the options given to them.

    Networks, losses, metrics, optimizers and schedules are checked against their constructors' named parameters
    (a ``**kwargs`` does not make a misspelt option right). For ``GramGANModel`` the keys of ``train`` are checked
    too; other models' are theirs to know.

    Args:
        opt: options as ``load_options`` or ``resolve_options`` give them.

    Raises:
        OptionError: one line a problem.
    """
    problems = list(_problems(opt))
    if problems:
        raise OptionError("\n".join(problems))


def _problems(opt: Mapping[str, Any]) -> Iterator[str]:
    model = None
    try:
        model = lookup("model", str(opt.get("model_type")), "model_type")
    except OptionError as error:
        yield str(error)
    for key, block in opt.items():
        if key.startswith("network_") and block:
            yield from _check_block(key, block, "arch")
    for key, block in (opt.get("datasets") or {}).items():
        yield from _check_type(f"datasets.{key}", block, "dataset")
    for key, block in ((opt.get("val") or {}).get("metrics") or {}).items():
        # `img`, `img2` are given by the caller; `better` is read by BasicSR's bookkeeping.
        yield from _check_block(f"val.metrics.{key}", block, "metric", extra=("better",))
    train = opt.get("train") or {}
    known_keys = getattr(model, "TRAIN_KEYS", None)
    for key, block in train.items():
        where = f"train.{key}"
        if known_keys is not None and key not in known_keys:
            yield f"{where}: unknown option{did_you_mean(key, known_keys)}"
        elif key == "extra_terms":
            for name, term in (block or {}).items():
                yield from _check_block(f"{where}.{name}", term, "loss")
        elif key.endswith("_opt") and isinstance(block, Mapping):
            yield from _check_block(where, block, "loss")
        elif key.startswith("optim_") and isinstance(block, Mapping):
            yield from _check_optimizer(where, block)
        elif key == "scheduler" and isinstance(block, Mapping):
            yield from _check_scheduler(where, block)


def _check_type(where: str, block: Any, kind: str) -> Iterator[str]:
    if not isinstance(block, Mapping) or "type" not in block:
        yield f"{where}: expected a section with a `type`"
        return
    try:
        lookup(kind, str(block["type"]), f"{where}.type")
    except OptionError as error:
        yield str(error)


def _check_block(where: str, block: Any, kind: str, extra: tuple[str, ...] = ()) -> Iterator[str]:
    problems = list(_check_type(where, block, kind))
    yield from problems
    if not problems:
        yield from _check_signature(where, block, lookup(kind, str(block["type"]), where), extra)


def _check_optimizer(where: str, block: Mapping[str, Any]) -> Iterator[str]:
    import torch

    names = {n: c for n, c in vars(torch.optim).items() if isinstance(c, type) and issubclass(c, torch.optim.Optimizer)}
    if block.get("type") not in names:
        yield f"{where}.type: torch has no optimizer '{block.get('type')}'{did_you_mean(str(block.get('type')), names)}"
        return
    yield from _check_signature(where, block, names[block["type"]])


def _check_scheduler(where: str, block: Mapping[str, Any]) -> Iterator[str]:
    from gramgan_plugin.models.host import scheduler_class

    try:
        yield from _check_signature(where, block, scheduler_class(str(block.get("type"))))
    except OptionError as error:
        yield str(error)


def _check_signature(
    where: str, block: Mapping[str, Any], build: Callable[..., Any], extra: tuple[str, ...] = ()
) -> Iterator[str]:
    parameters = inspect.signature(build).parameters.values()
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    for key in block:
        if key != "type" and key not in named and key not in extra:
            yield f"{where}.{key}: unknown option of {build.__name__}{did_you_mean(str(key), named)}"
