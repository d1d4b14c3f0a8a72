"""Measure the search in a patch database: ours, a plain scipy k-d tree and plain faiss, in one run.

A batch has 18,432 queries (8 crops of 192 px in patches of 4 px), half-way between the Gram vectors of a photo and of
its bicubic copy, as in training; the photos of the queries are not in the database. To fill large databases, the photos
are cut at all offsets and at several sizes; flat and equal patches are left out. Gram vectors are those of RGB (6
numbers) and of 16 channels of VGG19's conv1_2 (136 numbers; with random weights unless --vgg-weights are given).

The methods take turns; medians count. Plain approximate indexes are set to the recall of ours on the queries. Memory is
the peak while an index is built and first searched, above the process's memory before.

    python benchmarks/patchdb.py --largest 1000000          # the photos of scikit-image, a few minutes
    python benchmarks/patchdb.py --photos DIV2K_train_HR --json results.json
    python benchmarks/patchdb.py --photos PHOTOS --database textures.patchdb --kinds exact hnsw --rounds 3
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gramgan_plugin.functional import gram_vectors
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.making.describing import description_of
from gramgan_plugin.patchdb.search import as_tensor
from gramgan_plugin.patchdb.store import open_store
from gramgan_plugin.search.exact import ExactSearch
from gramgan_plugin.search.hnsw import HnswSearch, faiss_library, make_index
from gramgan_plugin.search.neighbours import Search
from gramgan_plugin.search.tree import TreeSearch

BATCH, CROP, PATCH = 8, 192, 4
SIZES = (10_000, 100_000, 1_000_000, 10_000_000)
SCALES = (1.0, 0.85, 0.72, 0.61, 0.5, 1.2)
MOST_EXACT = 100_000  # the most rows for which exact is tried
Ask = Callable[[Tensor], tuple[NDArray[Any], NDArray[Any]]]  # squared distances and rows of the nearest


@dataclass
class Method:
    """A method of search, with its measurements."""

    name: str
    kind: str
    ours: bool
    ask: Ask
    made_in: float = 0.0
    memory: float = 0.0
    recall: float = 0.0
    times: list[float] = field(default_factory=list)


def main() -> int:
    arguments = parse()
    photos = read_photos(arguments.photos)
    asked, stored = photos[::4], [photo for place, photo in enumerate(photos) if place % 4]
    results = one_database(asked, arguments) if arguments.database else all_sizes(asked, stored, arguments)
    if arguments.json:
        arguments.json.write_text(json.dumps({"rows": results}, indent=2) + "\n")
    return 0


def all_sizes(asked: list[Tensor], stored: list[Tensor], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure databases of RGB and of features, of ``SIZES``, made here."""
    results = []
    for name, features, largest in (
        ("RGB", lambda image: image, arguments.largest),
        ("features", feature_network(arguments.vgg_weights), min(arguments.largest, arguments.largest_features)),
    ):
        vectors = description(features, Definition(PATCH))
        batches = make_queries(asked, vectors, arguments.batches)
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            rows = database(stored, features, largest, Path(folder) / "grams.npy")
            print(f"\nGram vectors of {name}: {rows.shape[1]} numbers, {len(rows)} patches")
            sizes = [size for size in SIZES if size <= len(rows)]
            for size in sizes or [len(rows)]:
                results += measure(name, rows[:size], batches, arguments)
    return results


def one_database(asked: list[Tensor], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure a database of patches of ``PATCH`` pixels, built from other photos."""
    store = open_store(arguments.database)
    layer = description_of(store.definition, arguments.vgg_weights, store.path).layer
    vectors = description(layer or (lambda image: image), store.definition)
    print(f"\n{store.path}: {store.grams.shape[1]} numbers, {store.count} patches")
    return measure(store.path.name, store.grams, make_queries(asked, vectors, arguments.batches), arguments)


def description(features: Callable[[Tensor], Tensor], how: Definition) -> Callable[[Tensor], Tensor]:
    """Return the Gram vectors (P, D) of (1, 3, H, W)."""

    @torch.no_grad()
    def describe(image: Tensor) -> Tensor:
        return gram_vectors(features(image), how.patch_size, how.normalize, how.center)[0]

    return describe


def measure(
    features: str, rows: NDArray[np.float32], batches: list[Tensor], arguments: argparse.Namespace
) -> list[dict[str, Any]]:
    """Search one database with all methods, and print the results."""
    methods: list[Method] = []
    truth: list[NDArray[Any]] = []
    for kind in ("tree", "exact", "hnsw"):
        limit = {"exact": MOST_EXACT, "hnsw": arguments.largest_hnsw}.get(kind, len(rows))
        if len(rows) > limit or kind not in arguments.kinds:
            continue
        wanted = 1.0
        for name, ours, make in (("ours", True, make_ours), ("plain", False, make_plain)):
            with Peak() as peak:
                start = time.perf_counter()
                ask, tune = make(kind, rows)
                made_in = time.perf_counter() - start
                ask(batches[0])
            if not truth:  # by the first method, which is exact
                truth = [ask(batch)[0] for batch in batches]
            method = Method(f"{kind}, {name}", kind, ours, ask, made_in, peak.megabytes)
            method.recall = wanted = tuned(method, tune, batches, truth, wanted)
            methods.append(method)
    for turn in range(arguments.rounds + 1):
        for method in methods:
            time.sleep(0.05)  # until the idle threads of the last method sleep
            start = time.perf_counter()
            method.ask(batches[turn % len(batches)])
            if turn:  # the first warms up
                method.times.append(1000 * (time.perf_counter() - start))
    return [report(features, len(rows), method, methods) for method in methods]


def tuned(
    method: Method,
    tune: Callable[[int], None] | None,
    batches: list[Tensor],
    truth: list[NDArray[Any]],
    wanted: float,
) -> float:
    """Return the recall on the queries; raise the effort of a plain approximate index to the wanted recall first."""
    effort = 1
    while True:
        if tune is not None:
            tune(effort)
        found = [method.ask(batch) for batch in batches]
        # The true distance of what was found: plain faiss gives expanded squares in float32.
        shares = [
            np.mean(np.sqrt(squared) <= np.sqrt(best) * (1 + 1e-5) + 1e-7)
            for (squared, _), best in zip(found, truth, strict=True)
        ]
        if tune is None or np.mean(shares) >= wanted or effort >= 2**14:
            return float(np.mean(shares))
        effort *= 2


def make_ours(kind: str, array: NDArray[np.float32]) -> tuple[Ask, None]:
    """Build our search, as `PatchSearch` does."""
    rows = as_tensor(array)
    search: Search
    if kind == "tree":
        search = TreeSearch(rows)
    elif kind == "exact":
        search = ExactSearch(rows)
    else:
        index, settings, _ = make_index(rows)
        search = HnswSearch(rows, index, settings["effort"])

    def ask(queries: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
        found = search.search(queries, 1)
        return found.squared.numpy()[:, 0], found.rows.numpy()[:, 0]

    return ask, None


def make_plain(kind: str, array: NDArray[np.float32]) -> tuple[Ask, Callable[[int], None] | None]:
    """Build the same search directly with the library."""
    if kind == "tree":
        from scipy.spatial import cKDTree

        tree = cKDTree(array.astype(np.float64))

        def ask_tree(queries: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
            distance, row = tree.query(queries.numpy().astype(np.float64), workers=torch.get_num_threads())
            return distance**2, row

        return ask_tree, None
    faiss = faiss_library()
    rows = np.ascontiguousarray(array)
    dimensions = rows.shape[1]
    tune = None
    if kind == "exact":
        index = faiss.IndexFlatL2(dimensions)
    else:
        index = faiss.IndexHNSWFlat(dimensions, 32)

        def tune(effort: int) -> None:
            index.hnsw.efSearch = effort

    index.add(rows)

    def ask(queries: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
        _, found = index.search(queries.numpy(), 1)
        row = found[:, 0]
        return ((queries.numpy().astype(np.float64) - rows[row]) ** 2).sum(axis=1), row

    return ask, tune


def report(features: str, size: int, method: Method, methods: list[Method]) -> dict[str, Any]:
    """Print a line, with the ratio to the plain method of the same kind."""
    times = method.times
    median = statistics.median(times)
    plain = [other for other in methods if other.kind == method.kind and not other.ours]
    ratio = statistics.median(plain[0].times) / median if method.ours and plain else None
    print(
        f"{features:8} {size:>9,} {method.name:14} {median:9.1f} ms (best {min(times):.1f})  "
        f"recall {method.recall:.4f}  made in {method.made_in:6.1f} s  {method.memory:7.0f} MB"
        + (f"  {ratio:.2f}x as fast as plain" if ratio else ""),
        flush=True,
    )
    return {
        "features": features,
        "patches": size,
        "search": method.name,
        "median_ms": median,
        "best_ms": min(times),
        "recall": method.recall,
        "made_in_s": method.made_in,
        "peak_mb": method.memory,
        "times_as_fast_as_plain": ratio,
    }


class Peak:
    """The peak memory of the process inside the block, above that before it. Linux only; else 0."""

    megabytes = 0.0

    def __enter__(self) -> "Peak":
        if sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")
            self.before = self._status("VmRSS")
        return self

    def __exit__(self, *error: object) -> None:
        if sys.platform == "linux":
            self.megabytes = self._status("VmHWM") - self.before

    @staticmethod
    def _status(name: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def database(photos: list[Tensor], features: Callable[[Tensor], Tensor], most: int, path: Path) -> NDArray[np.float32]:
    """Return Gram vectors (N, D) of different patches that are not flat, in random order, mapped from a file."""
    blocks: list[NDArray[np.float32]] = []
    for block in blocks_of(photos, features):
        blocks.append(block)
        if sum(len(each) for each in blocks) >= most * 1.02:
            break
    rows = np.concatenate(blocks)
    _, first = np.unique(rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1]))).ravel(), return_index=True)
    np.save(path, rows[np.random.default_rng(0).permutation(first)[:most]])
    return np.load(path, mmap_mode="r")


def blocks_of(photos: list[Tensor], features: Callable[[Tensor], Tensor]) -> Iterator[NDArray[np.float32]]:
    """Yield the Gram vectors of all photos at one offset and size, then at the next."""
    offsets = [(y, x) for y, x in ((0, 0), (2, 2), (0, 2), (2, 0), (1, 1), (3, 3), (1, 3), (3, 1))]
    for y, x in offsets:
        for scale in SCALES:
            found = []
            for photo in photos:
                image = photo
                if scale != 1:
                    image = F.interpolate(photo, scale_factor=scale, mode="bicubic", antialias=True).clamp(0, 1)
                image = (image * 255).round() / 255
                cut = image[..., y:, x:]
                centred = gram_vectors(cut, PATCH, center=True)[0]
                vectors = gram_vectors(features(image)[..., y:, x:], PATCH)[0]
                found.append(vectors[centred[:, [0, 3, 5]].mean(dim=1) >= 0.01**2].numpy())
            yield np.concatenate(found)


def make_queries(photos: list[Tensor], describe: Callable[[Tensor], Tensor], batches: int) -> list[Tensor]:
    """Return the queries of each batch, (18432, D)."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for batch in range(batches):
        queries = []
        for place in range(BATCH):
            photo = photos[(batch * BATCH + place) % len(photos)]
            y, x = (int(torch.randint(side - CROP + 1, (), generator=generator)) for side in photo.shape[2:])
            gt = photo[..., y : y + CROP, x : x + CROP]
            lq = F.interpolate(gt, scale_factor=0.25, mode="bicubic", antialias=True)
            sr = F.interpolate(lq, scale_factor=4, mode="bicubic").clamp(0, 1)
            queries.append((describe(sr) + describe(gt)) / 2)
        found.append(torch.cat(queries))
    return found


def feature_network(weights: Path | None) -> Callable[[Tensor], Tensor]:
    """Return a network (1, 3, H, W) -> (1, 16, H, W): 16 channels of VGG19's conv1_2, trained or random."""
    generator = torch.Generator().manual_seed(0)
    if weights is None:
        first, first_bias = torch.randn(64, 3, 3, 3, generator=generator) * (2 / 27) ** 0.5, torch.zeros(64)
        second, second_bias = torch.randn(16, 64, 3, 3, generator=generator) * (2 / 576) ** 0.5, torch.zeros(16)
    else:
        state = torch.load(weights, weights_only=True, map_location="cpu")
        first, first_bias = state["features.0.weight"], state["features.0.bias"]
        second, second_bias = state["features.2.weight"][:16], state["features.2.bias"][:16]
    mean, std = (
        torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1),
        torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1),
    )

    @torch.no_grad()
    def features(image: Tensor) -> Tensor:
        return F.conv2d(
            F.relu(F.conv2d((image - mean) / std, first, first_bias, padding=1)), second, second_bias, padding=1
        )

    return features


def read_photos(folder: Path | None) -> list[Tensor]:
    """Return photos (1, 3, H, W), RGB in [0, 1]."""
    if folder is None:
        from gramgan_plugin.prepare.sample import sample_photos

        paths = [path for _, path in sample_photos()]
    else:
        paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".png", ".jpg", ".jpeg"))
    images = (cv2.imread(str(path)) for path in paths)
    photos = [
        torch.from_numpy(np.ascontiguousarray(image[..., ::-1])).permute(2, 0, 1)[None] / 255
        for image in images
        if image is not None and min(image.shape[:2]) >= CROP
    ]
    if len(photos) < 2:
        raise SystemExit(f"{folder}: fewer than two photos of at least {CROP} pixels")
    return photos


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path, help="folder of photos (default: those of scikit-image)")
    parser.add_argument("--database", type=Path, help="measure only this one, of `basicsr patchdb build`")
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="most patches, of RGB (default: %(default)s)")
    parser.add_argument("--largest-features", type=int, default=100_000, help="of features (default: %(default)s)")
    parser.add_argument("--largest-hnsw", type=int, default=100_000, help="for hnsw (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", default=["tree", "exact", "hnsw"], help="tree or exact has to be one")
    parser.add_argument("--batches", type=int, default=3, help="different ones (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each method (default: %(default)s)")
    parser.add_argument("--vgg-weights", type=Path, help="VGG19's, in the key names of torchvision")
    parser.add_argument("--scratch", type=Path, help="where the database is put meanwhile")
    parser.add_argument("--json", type=Path, help="write the results there, too")
    arguments = parser.parse_args()
    if not {"tree", "exact"} & set(arguments.kinds):
        parser.error("--kinds: take tree or exact, which find the true nearest")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
