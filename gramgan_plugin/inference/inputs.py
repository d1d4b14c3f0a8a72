"""Find the files to upscale, and the names of their results."""

import glob
import itertools
import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from gramgan_plugin.errors import UserError, os_problem
from gramgan_plugin.inference.picture_writing import FORMATS, format_of
from gramgan_plugin.utils.io import expanded, real_path
from gramgan_plugin.utils.text import shown

PICTURES = frozenset((*FORMATS, ".gif", ".heic", ".heif", ".hif", ".jfif", ".pgm", ".pnm", ".ppm"))
VIDEOS = frozenset((".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"))
CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv")  # of videos that are written; those of other kinds become .mkv
_WRITTEN = frozenset((*FORMATS, *CONTAINERS))


@dataclass(frozen=True)
class Job:
    """A file to upscale.

    Attributes:
        source: the file.
        target: the file to write.
        problem: why it cannot be done, in one line; "" if it can.
    """

    source: Path
    target: Path
    problem: str = ""

    @property
    def is_video(self) -> bool:
        """Whether the source is a video, by its suffix."""
        return self.source.suffix.lower() in VIDEOS


@dataclass(frozen=True)
class _Found:
    source: Path
    name: PurePath  # in the output folder, with the source's suffix
    problem: str = ""


def find_inputs(inputs: Sequence[str], output: str | Path, suffix: str = "", form: str | None = None) -> list[Job]:
    """Return what to upscale, in a fixed order.

    A folder is read with its subfolders; their structure is kept in ``output``, with several inputs in a folder of its
    name. The structure below the first wildcard of a glob is kept, too. Not read from folders: hidden files,
    ``output`` itself, results of an earlier run beside their sources, and videos, which must be named.

    Files that would be written under one name, ignoring case, get their old suffix into it (``a_jpg.png`` and
    ``a_png.png``); where these are the same, all but the first have a ``problem``.

    Args:
        inputs: files, folders and globs (``**`` stands for subfolders).
        output: a folder; for one file it may be the file to write. One with a suffix that no format has ends with a
            slash.
        suffix: put after the names, before the suffix of the format.
        form: the format to write, as a suffix without the dot: of pictures ("png"; if None that of the source, or PNG
            where it cannot be written), or of videos ("mp4"; if None they stay MP4, MOV or MKV; others become MKV).

    Raises:
        UserError: if an input is missing, has no pictures, or would be overwritten by its own result, or ``suffix``,
            ``form`` or ``output`` is wrong.
    """
    form = None if form is None else form.removeprefix(".")
    _check_naming(suffix, form)
    is_folder = str(output).endswith(("/", os.sep))
    output = expanded(output)
    paths = [pair for text in inputs for pair in _paths(text, alone=len(inputs) == 1)]
    if len(paths) == 1 and not paths[0][0].is_dir() and not output.is_dir() and output.suffix.lower() in _WRITTEN:
        return [_to_file(paths[0][0], output, form)]
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: a file; give a folder for the results")
    if not output.exists() and not is_folder and re.fullmatch(r"\.[A-Za-z]\w{2,4}", output.suffix):
        if len(paths) == 1 and not paths[0][0].is_dir():
            kinds = _kinds(paths[0][0])
            raise UserError(f"{output}: choose one of {', '.join(kinds)}, or end the name of a folder with a slash")
        if output.suffix.lower() in PICTURES | VIDEOS:
            raise UserError(f"{output}: a file's name, but there are several inputs; give a folder for the results")
    found = [file for path, name in paths for file in _files(path, name, output, suffix)]
    if not found:
        raise UserError(f"{shown(', '.join(inputs))}: no pictures in it ({', '.join(sorted(PICTURES))})")
    once = {(real_path(file.source), file.name): file for file in found}
    return _jobs(list(once.values()), output, suffix, form)


def _check_naming(suffix: str, form: str | None) -> None:
    if any(character in suffix for character in "/\\\0"):
        raise UserError(f"--suffix {shown(suffix)!r}: must not contain slashes")
    if form is not None and f".{form.lower()}" not in _WRITTEN:
        raise UserError(f"--format {shown(form)!r}: must be one of {', '.join(sorted(name[1:] for name in _WRITTEN))}")
    if form is not None and f".{form.lower()}" in FORMATS:
        format_of(Path(f"--format.{form}"))


def _paths(text: str, alone: bool) -> Iterator[tuple[Path, PurePath]]:
    """Yield the files and folders of an argument, with their names in the output folder."""
    path = expanded(text)
    if path.exists() or path.is_symlink():  # its name may look like a glob
        yield path, PurePath(path.name) if not path.is_dir() else PurePath("" if alone else real_path(path).name)
        return
    matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(text) else []  # noqa: PTH207
    if not matches:
        raise UserError(f"{shown(text)}: no such file or folder")
    fixed = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.parts))
    for match in map(Path, matches):
        name = PurePath(match.relative_to(fixed))
        if ".." in name.parts:
            name = PurePath(real_path(match).name)
        # With ** the files of a folder match as well.
        if "**" not in path.parts if match.is_dir() else match.suffix.lower() in PICTURES | VIDEOS:
            yield match, name


def _kinds(source: Path) -> tuple[str, ...]:
    """Return the suffixes of what can be written of a file."""
    return CONTAINERS if source.suffix.lower() in VIDEOS else tuple(FORMATS)


def _format(suffix: str) -> str:
    """Return the same for suffixes of one format."""
    return FORMATS.get(suffix.lower(), suffix.lower())


def _to_file(source: Path, target: Path, form: str | None) -> Job:
    job = Job(source, target)
    kinds = _kinds(source)
    if target.suffix.lower() not in kinds:
        raise UserError(f"{target}: for {source.name} choose one of {', '.join(kinds)}")
    if form is not None and _format(target.suffix) != _format(f".{form}"):
        raise UserError(f"{target}: its suffix is not --format {form}; leave one of the two out")
    if real_path(source) == real_path(target):
        raise UserError(f"{target}: is the input itself; choose another --output")
    return job


def _files(path: Path, name: PurePath, output: Path, suffix: str) -> list[_Found]:
    """Return the pictures of a folder, or the file itself."""
    if not path.is_dir():
        return [_Found(path, name)]
    top = real_path(path)
    if top != real_path(output):
        return list(_walk(path, name, top, {top, real_path(output)}))
    found = list(_walk(path, name, top, {top}))
    results = set()
    for stem, ending in {(file.name.with_suffix(""), file.name.suffix[1:].lower()) for file in found if suffix}:
        results |= {stem.with_name(f"{stem.name}{suffix}"), stem.with_name(f"{stem.name}_{ending}{suffix}")}
    return [file for file in found if file.name.with_suffix("") not in results]


def _walk(folder: Path, name: PurePath, top: Path, seen: set[Path]) -> Iterator[_Found]:
    """Yield the pictures below a folder; each folder once.

    Args:
        folder: the folder.
        name: its name in the output folder.
        top: the real path of the folder at which the walk began.
        seen: real paths of folders that are not read (again).
    """
    try:
        with os.scandir(folder) as entries:
            ordered = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        problem = os_problem(error, "the folder") or f"the folder: {error.strerror}"
        if not name.parts:
            raise UserError(f"{folder}: {problem}") from error
        yield _Found(folder, name, problem)
        return
    for entry in ordered:
        path, inner, is_folder = Path(entry.path), name / entry.name, False
        if entry.name.startswith("."):
            continue
        with suppress(OSError):  # a link to itself
            is_folder = entry.is_dir()
        if is_folder:
            real = real_path(path)
            # A link within the tree leads to a folder with a name of its own; one to above it would lead in a circle.
            if real in seen or top.is_relative_to(real) or (entry.is_symlink() and real.is_relative_to(top)):
                continue
            seen.add(real)
            yield from _walk(path, inner, top, seen)
        elif path.suffix.lower() in PICTURES:
            yield _Found(path, inner)


def _jobs(found: Sequence[_Found], output: Path, suffix: str, form: str | None) -> list[Job]:
    """Return the jobs of files, with those that would overwrite something marked."""
    kinds: dict[str, set[str]] = {}  # of the files that would be written under one name
    for file in found:
        kinds.setdefault(_key(_target(file.name, suffix, form)), set()).add(file.name.suffix.lower())
    sources = {_key(real_path(file.source)): file.source for file in found}
    taken: dict[str, Path] = {}
    root, jobs = real_path(output), []
    for file in found:
        name = _target(file.name, suffix, form)
        if len(kinds[_key(name)]) > 1:
            name = _target(file.name, f"_{file.name.suffix[1:].lower()}{suffix}", form)
        target, problem = output / name, file.problem
        real = real_path(target.parent) / target.name
        overwritten = sources.get(_key(real))
        if overwritten == file.source:
            raise UserError(f"{target}: would be overwritten by its own result; choose another --output or a --suffix")
        if overwritten is not None:
            problem = problem or f"its result would overwrite the input {overwritten}; choose another --output"
        elif not suffix and real.parent == real_path(file.source).parent and target.exists():
            problem = problem or f"{target} is there beside the input; choose another --output or a --suffix"
        elif not real.is_relative_to(root):
            problem = problem or f"{target.parent}: a link out of the output folder; remove it"
        first = taken.setdefault(_key(name), file.source)
        if first != file.source:
            problem = problem or f"its result would be {target}, as that of {first}; rename it, or upscale it alone"
        jobs.append(Job(file.source, target, problem))
    return jobs


def _key(path: PurePath) -> str:
    """Return the same text for names that are one file on a file system that ignores case."""
    return unicodedata.normalize("NFC", str(path)).casefold()


def _target(name: PurePath, suffix: str, form: str | None) -> PurePath:
    ending = name.suffix.lower()
    wanted = None if form is None else f".{form.lower()}"
    if wanted is not None and wanted in _kinds(Path(name)):
        ending = wanted
    elif ending in VIDEOS:
        ending = ending if ending in CONTAINERS else ".mkv"
    elif ending not in FORMATS:
        ending = ".jpg" if ending == ".jfif" else ".png"
    return name.with_name(f"{name.stem}{suffix}{ending}")
