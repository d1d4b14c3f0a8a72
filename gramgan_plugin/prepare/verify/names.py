"""Check that the files that record the origin of a prepared GT LMDB's images still fit it."""

from pathlib import Path

from gramgan_plugin.errors import UserError, file_errors
from gramgan_plugin.prepare.prepared_folder import MARKER
from gramgan_plugin.prepare.verify.database import Database
from gramgan_plugin.prepare.verify.outcome import Check
from gramgan_plugin.utils.io import parse_json, read_lines

SUMMARY = "dataset.json"


def check_names(folder: Path, gt: Database) -> list[Check]:
    """Compare ``names.jsonl`` and ``dataset.json``, if they exist, with the list of GT."""
    checks = []
    if (folder / MARKER).is_file():
        check = Check(MARKER, "keys")
        _compare_names(check, folder / MARKER, gt)
        check.end(f"names the photos of all {len(gt.listed)} images", "keys differ from those of GT")
        checks.append(check)
    if (folder / SUMMARY).is_file():
        check = Check(SUMMARY, "count")
        count = _recorded_count(folder / SUMMARY)
        if count != len(gt.listed):
            check.wrong("", f"records {'no number of' if count is None else count} sub-images, GT has {len(gt.listed)}")
        check.end("as many sub-images as GT has", "number differs from that of GT")
        checks.append(check)
    return checks


def _compare_names(check: Check, path: Path, gt: Database) -> None:
    named = set()
    try:
        for number, record in read_lines(path):
            key = record.get("key")
            if not isinstance(key, str) or key in named:
                check.wrong("", f"line {number}: {'a repeated key' if isinstance(key, str) else 'no key'}")
            else:
                named.add(key)
    except UserError as error:
        check.wrong("", str(error))
        return
    for key in sorted(named ^ gt.listed.keys()):
        check.wrong(key, "not in GT" if key in named else "its photo is not named")


def _recorded_count(path: Path) -> int | None:
    try:
        with file_errors(path):
            record = parse_json(path.read_bytes())
    except ValueError:
        return None
    count = record.get("sub_images") if isinstance(record, dict) else None
    return count if isinstance(count, int) else None
