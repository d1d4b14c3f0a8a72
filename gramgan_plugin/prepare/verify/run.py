"""Run a whole verification: is an LMDB intact, does it fit its list, is LQ GT's downsampling."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from gramgan_plugin.data.images import Image
from gramgan_plugin.data.lmdb_manifest import write_manifest
from gramgan_plugin.errors import UserError
from gramgan_plugin.prepare.verify.alignment import Measured, measure
from gramgan_plugin.prepare.verify.database import Database
from gramgan_plugin.prepare.verify.names import check_names
from gramgan_plugin.prepare.verify.outcome import Check, State, Verification
from gramgan_plugin.prepare.verify.pair_checks import check_sizes, guess_scale, judge, made_kind
from gramgan_plugin.prepare.verify.targets import Target
from gramgan_plugin.utils.progress import tracked
from gramgan_plugin.utils.threads import in_order, one_thread_each, threads_for

FACTS_OF_EXTENT = ("format", "made_by", "content", "entries", "bytes", "transactions", "meta_info")


@dataclass
class _Pairing:
    """An LQ database of the GT database, and the measurements of its pairs."""

    lq: Database
    scale: int | None
    selected: set[str] = field(default_factory=set)
    measured: dict[str, Measured] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)


def verify(
    target: Target,
    *,
    pairs: int | None = None,
    workers: int | None = None,
    store: bool = True,
    progress: bool = True,
) -> Verification:
    """Read a whole LMDB, or a GT LMDB and its LQ LMDBs, and report all problems.

    Without problems, the fingerprint of each LMDB's content is stored beside it; training refuses an LMDB that differs
    from it. Memory grows with the number of keys only.

    Args:
        target: result of ``find_target``.
        pairs: number of pairs to compare as images, evenly spread; None for all. All images are decoded in any case.
        workers: number of threads; None for one for each CPU of this process.
        store: whether to store fingerprints.
        progress: report on stderr.

    Raises:
        UserError: if a path is not an LMDB with a list, or no keys match.
    """
    if pairs is not None and pairs < 0:
        raise UserError(f"--pairs {pairs}: must be at least 0")
    threads = threads_for(workers)
    first = Database(target.first)
    pairings = [_Pairing(Database(path), scale) for path, scale in target.lq]
    databases = [first, *(pairing.lq for pairing in pairings)]
    for database in databases:
        database.inspect(progress)
    for pairing in pairings:
        _prepare(first, pairing, pairs)
    _read_all(databases, pairings, threads, progress)

    result = Verification(str(target.path))
    contents = []
    for database in databases:
        found, record, stale = database.content()
        contents.append((found, record, stale))
        database.images.end(_all_decode(database), "images are not as they should be")
        result.checks += [*database.checks, database.images, found]
    for pairing in pairings:
        of = _both(first, pairing.lq)
        if pairing.measured and pairing.scale is not None:
            pairing.checks.append(judge(of, pairing.measured, pairing.scale))
        else:
            pairing.checks.append(Check(of, "downsampling").skip("no pairs to compare"))
        result.checks += pairing.checks
    if target.first != target.path:
        result.checks += check_names(target.path, first)
    if store and result.fine:
        for number, (database, (found, record, stale)) in enumerate(zip(databases, contents, strict=True)):
            if stale:
                _store(database, found, _facts(record, pairings, number))
    return result


def _prepare(gt: Database, pairing: _Pairing, most: int | None) -> None:
    """Check the sizes of the pairs as listed, and choose which to compare."""
    lq = pairing.lq
    if pairing.scale is None:
        pairing.scale = guess_scale(gt.listed, lq.listed)
    pairing.checks.append(check_sizes(_both(gt, lq), gt.listed, lq.listed, pairing.scale))
    if gt.stored is None or lq.stored is None or pairing.scale is None:
        return
    scale = pairing.scale
    fitting = [
        key
        for key in sorted(gt.listed.keys() & lq.listed.keys())
        if gt.listed[key][:2] == (lq.listed[key][0] * scale, lq.listed[key][1] * scale)
    ]
    count = len(fitting) if most is None else min(most, len(fitting))
    pairing.selected = {fitting[number * len(fitting) // count] for number in range(count)}


def _read_all(databases: Sequence[Database], pairings: Sequence[_Pairing], workers: int, show: bool) -> None:
    keys = sorted(set().union(*(database.stored or () for database in databases)))

    def read(key: str) -> list[str | None]:
        images: list[Image | None] = []
        problems = []
        for database in databases:
            image, problem = database.read(key) if key in (database.stored or ()) else (None, None)
            images.append(image)
            problems.append(problem)
        gt, *others = images
        for pairing, lq in zip(pairings, others, strict=True):
            if key in pairing.selected and gt is not None and lq is not None:
                pairing.measured[key] = measure(gt, lq, pairing.scale or 1)
        return problems

    with one_thread_each(), closing(in_order(read, keys, workers, ahead=4 * workers)) as results:
        for _, (key, problems) in zip(tracked(keys, "image", show), results, strict=True):
            for database, problem in zip(databases, problems, strict=True):
                if problem is not None:
                    database.images.wrong(key, problem)
    for pairing in pairings:  # threads finish in any order
        pairing.measured = dict(sorted(pairing.measured.items()))


def _store(database: Database, found: Check, facts: dict[str, Any]) -> None:
    try:
        write_manifest(database.path, database.digest.hexdigest(), **facts)
    except UserError as error:
        found.state, found.text = State.NOTE, f"{found.text}; cannot be stored: {error}"
    else:
        found.text += "; stored"


def _facts(record: dict[str, Any] | None, pairings: Sequence[_Pairing], number: int) -> dict[str, Any]:
    """Return the manifest's further facts: those recorded before, or those of this verification."""
    if record is not None:
        return {name: value for name, value in record.items() if name not in FACTS_OF_EXTENT}
    if not pairings:
        return {}
    if number == 0:
        return {"kind": "gt"}
    pairing = pairings[number - 1]
    return {"kind": "lq", "scale": pairing.scale, "lq": made_kind(pairing.measured) or "given"}


def _all_decode(database: Database) -> str:
    if database.stored is None:
        database.images.skip("data.mdb is damaged")
        return database.images.text
    return f"all {len(database.stored)} decode, with the sizes listed"


def _both(gt: Database, lq: Database) -> str:
    return f"{gt.name} and {lq.name}"
