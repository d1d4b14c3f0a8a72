"""Measure packing photos and loading crops, by BasicSR and by us, with the same photos and number of processes.

Packing: 2K photos and their LQ to an LMDB pair of 480 px sub-images. BasicSR has two scripts: one cuts the photos into
files (`extract_subimages`: a pool of processes, PNG level 3), one packs the files (`create_lmdb`, which decodes and
encodes them again; here with its option to do so in parallel, which keeps all of them in memory). BasicSR's package
lacks the first, so its loop is here. Ours is `basicsr prepare`. Time and memory are given for three sizes. Loading:
images a second of BasicSR's `PairedImageDataset` behind its own loader, and of ours up to the float batch, from the
same LMDB; with the cache, from an LMDB packed with `--encoding fast`, and from shards of the same pairs.

The photos are mosaics of those that scikit-image carries. Every figure comes from a separate process; the variants
take turns.

    python benchmarks/data.py                                  # 2 CPU cores: about 10 minutes
    python benchmarks/data.py --workers 16 --photos 80
"""

import argparse
import contextlib
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import product
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from gramgan_plugin.cli.main import main as basicsr
from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.functional.matlab_bicubic import lq_levels
from gramgan_plugin.prepare.sample import sample_photos
from gramgan_plugin.prepare.shard_writer import write_shards
from gramgan_plugin.prepare.subimages import offsets

SCALE, WIDTH, HEIGHT, TILE = 4, 2040, 1356, 300
CROP, STEP = 480, 240
GT_SIZE, BATCH = 192, 16
WARM_UP, SECONDS = 8, 6.0  # batches; time for one reading


def write_photos(folder: Path, count: int) -> None:
    """Write ``HR/0001.png`` ... and their LQ ``LR/0001x4.png``: mosaics with the statistics of real photos."""
    draw = np.random.default_rng(0)
    real = [cv2.imread(str(path)) for _, path in sample_photos()]
    real = [photo for photo in real if min(photo.shape[:2]) >= TILE]
    for name in ("HR", "LR"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(1, count + 1):
        photo = np.empty((HEIGHT, WIDTH, 3), np.uint8)
        for y in range(0, HEIGHT, TILE):
            for x in range(0, WIDTH, TILE):
                source = real[draw.integers(len(real))]
                top, left = (int(draw.integers(side - TILE + 1)) for side in source.shape[:2])
                tile = source[top : top + TILE, left : left + TILE][:, :: int(draw.choice((-1, 1)))]
                photo[y : y + TILE, x : x + TILE] = tile[: HEIGHT - y, : WIDTH - x]
        lq = lq_levels(torch.from_numpy(photo).permute(2, 0, 1)[None], SCALE)[0].permute(1, 2, 0).numpy()
        cv2.imwrite(str(folder / "HR" / f"{number:04d}.png"), photo)
        cv2.imwrite(str(folder / "LR" / f"{number:04d}x{SCALE}.png"), lq)


def cut_to_files(job: tuple[Path, Path, int, int]) -> None:
    """Cut one photo into files, as BasicSR's first script does."""
    path, folder, crop, step = job
    photo = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    rows, columns = (offsets(side, crop, step, 0) for side in photo.shape[:2])
    stem = path.stem.removesuffix(f"x{SCALE}")
    for number, (y, x) in enumerate(product(rows, columns), start=1):
        cut = np.ascontiguousarray(photo[y : y + crop, x : x + crop])
        cv2.imwrite(str(folder / f"{stem}_s{number:03d}.png"), cut, [cv2.IMWRITE_PNG_COMPRESSION, 3])


def pack_like_basicsr(photos: Path, out: Path, workers: int) -> None:
    """Write files, then the LMDBs from the files, GT before LQ, as BasicSR's scripts do."""
    from basicsr.utils.lmdb_util import make_lmdb_from_imgs

    for kind, factor in (("HR", 1), ("LR", SCALE)):
        files = out / f"{kind}_sub"
        files.mkdir(parents=True)
        with Pool(workers) as pool:
            jobs = [(path, files, CROP // factor, STEP // factor) for path in sorted((photos / kind).iterdir())]
            pool.map(cut_to_files, jobs, chunksize=1)
        names = sorted(path.name for path in files.iterdir())
        keys = [name.removesuffix(".png") for name in names]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            make_lmdb_from_imgs(
                str(files), str(out / f"{kind}.lmdb"), names, keys, multiprocessing_read=True, n_thread=workers
            )


def pack(photos: Path, out: Path, workers: int, encoding: str, given_lq: bool) -> None:
    """Pack the photos by `basicsr prepare`."""
    lq = ["--lq", str(photos / "LR")] if given_lq else []
    arguments = ["prepare", "div2k", "--hr", str(photos / "HR"), *lq, "--out", str(out), "--preset", "esrgan"]
    arguments += ["--encoding", encoding, "--workers", str(workers)]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = basicsr(arguments)
    if code:
        raise SystemExit(f"basicsr {' '.join(arguments)}: exit code {code}")


def training_block(lmdbs: Path, workers: int) -> dict[str, Any]:
    return {
        "name": "benchmark",
        "phase": "train",
        "scale": SCALE,
        "gt_size": GT_SIZE,
        "use_hflip": True,
        "use_rot": True,
        "dataroot_gt": str(lmdbs / "GT.lmdb"),
        "dataroot_lq": str(lmdbs / f"LQ_x{SCALE}.lmdb"),
        "io_backend": {"type": "lmdb"},
        "num_worker_per_gpu": workers,
        "batch_size_per_gpu": BATCH,
        "dataset_enlarge_ratio": 1000,
    }


def batches_of_basicsr(lmdbs: Path, workers: int) -> Any:
    """Yield batches of BasicSR's loader, built as in its train_pipeline."""
    from basicsr.data import build_dataloader
    from basicsr.data.data_sampler import EnlargedSampler
    from basicsr.data.paired_image_dataset import PairedImageDataset

    options = training_block(lmdbs, workers)
    dataset = PairedImageDataset(options)
    sampler = EnlargedSampler(dataset, 1, 0, options["dataset_enlarge_ratio"])
    return iter(build_dataloader(dataset, options, num_gpu=1, dist=False, sampler=sampler, seed=0))


def batches_of_ours(lmdbs: Path, workers: int, variant: str) -> Any:
    """Yield batches of our loader, converted as the model converts them."""
    from gramgan_plugin.data.batch import to_model_batch

    options = {**training_block(lmdbs, workers), "type": "PairedSRDataset", "cache": "cache" in variant}
    if "shards" in variant:
        options = {**options, "type": "StreamedSRDataset", "dataroot_shards": str(lmdbs / "shards"), "cache": None}
        options |= dict.fromkeys(("dataroot_gt", "dataroot_lq"))
    opt = {"datasets": {"train": options}, "dist": False, "num_gpu": 1, "world_size": 1, "rank": 0, "manual_seed": 0}
    data = TrainingData(opt)
    for _, _, batch in data.batches(0):
        yield to_model_batch(batch, torch.device("cpu"))


def load(variant: str, lmdbs: Path, workers: int) -> float:
    """Return the loaded images per second."""
    torch.set_num_threads(1)
    batches = batches_of_basicsr(lmdbs, workers) if variant == "basicsr" else batches_of_ours(lmdbs, workers, variant)
    for _ in range(WARM_UP):
        next(batches)
    if "cache" in variant:  # the first passes fill it
        images = len((lmdbs / "GT.lmdb" / "meta_info.txt").read_text().splitlines())
        for _ in range(2 * images // BATCH):
            next(batches)
    count, start = 0, time.perf_counter()
    while (seconds := time.perf_counter() - start) < SECONDS:
        batch = next(batches)
        count += len(batch["gt"])
    return count / seconds


def in_a_process(*arguments: object) -> dict[str, float]:
    """Run one part of this script and read what it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--part", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def part(name: str, photos: Path, out: Path, workers: int) -> dict[str, float]:
    """Measure once: seconds and memory, or images per second."""
    if name.startswith("load:"):
        return {"images a second": load(name.removeprefix("load:"), photos, workers)}
    start = time.perf_counter()
    if name == "pack:basicsr":
        pack_like_basicsr(photos, out, workers)
    else:
        encoding, lq = name.removeprefix("pack:").split(",")
        pack(photos, out, workers, encoding, lq == "given")
    seconds = time.perf_counter() - start
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "MiB": memory, "disk": disk_use(out)}


def disk_use(folder: Path) -> float:
    """Return the MB of the LMDBs under a folder."""
    return sum(path.stat().st_blocks * 512 for path in folder.rglob("data.mdb")) / 1e6


def subset(photos: Path, folder: Path, count: int) -> Path:
    """Link the first photos into a folder."""
    for kind in ("HR", "LR"):
        (folder / kind).mkdir(parents=True)
        for path in sorted((photos / kind).iterdir())[:count]:
            (folder / kind / path.name).symlink_to(path)
    return folder


def compare_packing(photos: Path, scratch: Path, arguments: argparse.Namespace) -> None:
    """Print the seconds of each variant, medians over the rounds, at three sizes."""
    names = ("pack:basicsr", "pack:png,given", "pack:png,made", "pack:fast,given")
    print(
        f"packing photos of {WIDTH}x{HEIGHT}, sub-images of {CROP} every {STEP}, {arguments.workers} processes/threads"
    )
    for share in (4, 2, 1):
        count = max(1, arguments.photos // share)
        some = subset(photos, scratch / f"photos{count}", count)
        readings: dict[str, list[dict[str, float]]] = {name: [] for name in names}
        for _ in range(arguments.rounds):
            for name in names:
                out = scratch / "packed"
                readings[name].append(in_a_process(name, some, out, arguments.workers))
                shutil.rmtree(out)
        base = statistics.median(r["seconds"] for r in readings[names[0]])
        for name in names:
            seconds, memory, disk = (
                statistics.median(r[k] for r in readings[name]) for k in ("seconds", "MiB", "disk")
            )
            print(
                f"  {count:4d} photos  {name:16s} {seconds:7.2f} s  {seconds / count:6.3f} s a photo  "
                f"{base / seconds:5.2f}x  {memory:6.0f} MiB  {disk:7.1f} MB on disk"
            )


def compare_loading(photos: Path, scratch: Path, arguments: argparse.Namespace) -> None:
    """Print the images per second of each variant, medians over the rounds."""
    lmdbs = {encoding: scratch / encoding for encoding in ("png", "fast")}
    some = subset(photos, scratch / "photos_loaded", max(1, arguments.photos // 4))
    for encoding, folder in lmdbs.items():
        in_a_process(f"pack:{encoding},given", some, folder, arguments.workers)
        write_shards(folder / "GT.lmdb", folder / f"LQ_x{SCALE}.lmdb", folder / "shards", 8 * 2**20, progress=False)
    print(f"loading crops of {GT_SIZE} px in batches of {BATCH}, {arguments.workers} loading processes")
    variants = [("basicsr", "png"), ("ours", "png"), ("ours, cache", "png"), ("basicsr", "fast"), ("ours", "fast")]
    variants += [("ours, shards", "png"), ("ours, shards", "fast")]
    readings: dict[tuple[str, str], list[float]] = {variant: [] for variant in variants}
    for _ in range(arguments.rounds):
        for variant, encoding in variants:
            reading = in_a_process(f"load:{variant}", lmdbs[encoding], scratch, arguments.workers)
            readings[variant, encoding].append(reading["images a second"])
    base = statistics.median(readings[variants[0]])
    for (variant, encoding), values in readings.items():
        speed = statistics.median(values)
        print(
            f"  {variant:12s} {encoding:5s} {speed:8.0f} images/s  {speed / base:5.2f}x  "
            f"{disk_use(lmdbs[encoding]):7.1f} MB on disk"
        )


def main() -> None:
    if sys.argv[1:2] == ["--part"]:
        name, photos, out, workers = sys.argv[2:6]
        print(json.dumps(part(name, Path(photos), Path(out), int(workers))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=int, default=24, help="2K photos of the largest of the three sizes")
    parser.add_argument("--workers", type=int, default=2, help="processes or threads, for packing and for loading")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=("packing", "loading"))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        photos = scratch / "photos"
        write_photos(photos, arguments.photos)
        if arguments.only != "loading":
            compare_packing(photos, scratch, arguments)
        if arguments.only != "packing":
            compare_loading(photos, scratch, arguments)


if __name__ == "__main__":
    main()
