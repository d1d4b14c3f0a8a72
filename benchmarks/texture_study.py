"""Measure the choices, values and gradients of the patch-wise texture loss on three photos, for docs/one_to_many.md.

Unless stated otherwise, SR is a bicubic enlargement of the downsampled photo, since training starts close to it. Losses
are given relative to their value at that enlargement, so that losses in different units can be compared.

    python benchmarks/texture_study.py                    (prints the tables)
    python benchmarks/texture_study.py --pictures         (also writes the pictures to docs/images)
"""

import argparse
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from texture_changes import AMPLITUDES, blurs, directions, mixtures, noise, noises, shifts, shuffled
from texture_descent import PHOTOS, bicubic_enlarged, photo_crop
from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.functional import (
    Targets,
    choose_targets,
    extract_patches,
    gram_difference,
    gram_vectors,
    random_theta,
)
from gramgan_plugin.losses import GramPatchLoss
from gramgan_plugin.patchdb.database_manifest import Definition
from gramgan_plugin.patchdb.making.building import build
from gramgan_plugin.patchdb.search import open_search
from gramgan_plugin.patchdb.store import open_store
from gramgan_plugin.prepare.sample import sample_photos

SIDE = 192
IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
CENTER = {"uncentred": False, "centred": True}

Measure = Callable[[Tensor, Tensor], Tensor]
Series = tuple[list[str], dict[str, list[float]]]


def warps(loss: GramPatchLoss) -> Tensor:
    """Return the same warps for every crop."""
    return random_theta(1, loss.options.affine_copies, loss.options.affine_magnitude, seed=(0, 0))


def with_warps(loss: GramPatchLoss) -> Measure:
    """Return a texture loss whose warped copies are the same at each call."""
    return lambda sr, gt: loss(sr, gt, warps(loss))


def texture_loss(center: bool, beta: float = 1.0) -> Measure:
    """Return L_PT with the default options except these."""
    return with_warps(GramPatchLoss(center=center, beta=beta))


def one_to_one(center: bool) -> Measure:
    """Return the same difference of Gram matrices to GT's patch at the same place, without a choice."""

    def measure(sr: Tensor, gt: Tensor) -> Tensor:
        x, y = (gram_vectors(image, 4, center=center) for image in (sr, gt))
        return gram_difference(x, y, 3)

    return measure


def pixel_l1(sr: Tensor, gt: Tensor) -> Tensor:
    """Return the content loss."""
    return (sr - gt).abs().mean()


MEASURES: dict[str, Measure] = {
    "L_PT, uncentred": texture_loss(False),
    "L_PT, centred": texture_loss(True),
    "L_PT, centred, beta 0": texture_loss(True, beta=0.0),
    "one-to-one Gram, centred": one_to_one(True),
    "L1 of pixels": pixel_l1,
}


def relative(images: Mapping[str, Tensor], gt: Tensor) -> dict[str, list[float]]:
    """Return each loss of each image, relative to that of the bicubic enlargement."""
    reference = bicubic_enlarged(gt)
    return {
        name: [float(measure(image, gt) / measure(reference, gt)) for image in images.values()]
        for name, measure in MEASURES.items()
    }


def around_gt(gt: Tensor, measure: Measure) -> dict[str, list[float]]:
    """Return a loss at GT plus each direction times each of ``AMPLITUDES``."""
    return {
        name: [float(measure(gt + amplitude * change, gt)) for amplitude in AMPLITUDES]
        for name, change in directions(gt).items()
    }


def grows(values: list[float]) -> bool:
    """Return whether values increase, and the first is above float32's rounding."""
    return all(above > below for below, above in zip([1e-8, *values[:-1]], values, strict=True))


def gradient(sr: Tensor, gt: Tensor, measure: Measure) -> Tensor:
    """Return a loss's gradient at SR, in float64."""
    sr = sr.clone().requires_grad_()
    (found,) = torch.autograd.grad(measure(sr, gt), sr)
    return found.double()


def constant_share(sr: Tensor, gt: Tensor, center: bool) -> float:
    """Return the share of energy of L_PT's gradient at SR that is constant within each 4x4 patch and channel."""
    patches = extract_patches(gradient(sr, gt, texture_loss(center)), 4)  # (1, P, 16, 3)
    return float(patches.mean(dim=2).square().sum() * 16 / patches.square().sum())


def mean_share(gt: Tensor) -> float:
    """Return the share of the uncentred Gram matrices' trace that is due to the patch's mean."""
    patches = extract_patches(gt.double(), 4)
    return float(patches.mean(dim=2).square().sum() * 16 / patches.square().sum())


def choose(sr: Tensor, gt: Tensor, loss: GramPatchLoss) -> Targets:
    """Return the targets of L_PT."""
    return choose_targets(sr, gt, loss.options, theta=warps(loss), database=loss.database)


def chosen(gt: Tensor, loss: GramPatchLoss, fixed: Measure) -> dict[str, float]:
    """Return a loss's choices for the bicubic enlargement, compared with GT's patch at the same place.

    Args:
        gt: (1, 3, H, W).
        loss: with the choice.
        fixed: the same without one.
    """
    sr = bicubic_enlarged(gt)
    targets = choose(sr, gt, loss)
    shares, own = targets.kind_fractions(), targets.own_position_fraction()
    centres = targets.candidates.centres()
    way = (centres[targets.index[0]] - centres[: targets.index.shape[1]]).norm(dim=-1)
    free = with_warps(loss)
    angle = F.cosine_similarity(gradient(sr, gt, free).flatten(), gradient(sr, gt, fixed).flatten(), dim=0)
    return {
        "GT, own place": own,
        "GT, elsewhere": shares["original"] - own,
        "GT, smaller": shares["downsampled"],
        "GT, warped": shares["affine"],
        "median way, px": float(way.median()),
        "loss / one-to-one": float(free(sr, gt) / fixed(sr, gt)),
        "cosine of gradients": float(angle),
    }


def database_of_others(folder: Path, center: bool) -> Path:
    """Build a database of at most 100,000 patches of the sample photos that are not used here."""
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for name, path in sample_photos():
        if not name.startswith(PHOTOS):
            shutil.copy(path, photos / name)
    built = folder / f"center-{center}.patchdb"
    build([photos], built, max_patches=100_000, definition=Definition(4, center=center), progress=False)
    return built


def with_database(gt: Tensor, loss: GramPatchLoss) -> list[float]:
    """Return the share of choices from the database, loss and gradient as in ``chosen``, and the loss at GT."""
    sr, free, fixed = bicubic_enlarged(gt), with_warps(loss), one_to_one(loss.options.center)
    angle = F.cosine_similarity(gradient(sr, gt, free).flatten(), gradient(sr, gt, fixed).flatten(), dim=0)
    share = choose(sr, gt, loss).kind_fractions()["database"]
    return [share, float(free(sr, gt) / fixed(sr, gt)), float(angle), float(free(gt, gt) / free(sr, gt))]


def table(head: list[str], rows: list[list[str]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(head) + " |")
    print("|---|" + "---:|" * (len(head) - 1))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def print_chosen(gts: Mapping[str, Tensor]) -> None:
    """Print means over the photos."""
    print("### What is chosen for the bicubic enlargement\n")
    beby = GramPatchLoss(
        patch_size=3, select_by="pixel", loss_on="pixel", downsample=(2, 4), antialias=False, affine_copies=0
    )
    arms = {name: (GramPatchLoss(center=center), one_to_one(center)) for name, center in CENTER.items()}
    rows = []
    for name, (loss, fixed) in {**arms, "Beby-GAN's, pixels": (beby, pixel_l1)}.items():
        found = [chosen(gt, loss, fixed) for gt in gts.values()]
        rows.append([name, *(f"{sum(one[key] for one in found) / len(found):.2f}" for key in found[0])])
    table(["loss", *found[0]], rows)


def print_database(gts: Mapping[str, Tensor]) -> None:
    """Print means over the photos."""
    print("### With a database of other photos' patches\n")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, center in CENTER.items():
            path = database_of_others(Path(folder), center)
            print(f"{name}: {open_store(path).count} patches")
            for use in ("also", "only"):
                loss = GramPatchLoss(center=center, database=open_search(path), database_use=use)
                found = torch.tensor([with_database(gt, loss) for gt in gts.values()])
                rows.append([f"{name}, {use}", *(f"{value:.2f}" for value in found.mean(dim=0).tolist())])
    print()
    head = ["from the database", "loss / one-to-one", "cosine of gradients", "loss at GT / at bicubic"]
    table(["loss", *head], rows)


def mean_relative(make: Callable[[Tensor], dict[str, Tensor]], gts: Mapping[str, Tensor]) -> Series:
    """Return the names of a series of images, and the mean over the photos of ``relative``."""
    found = [relative(make(gt), gt) for gt in gts.values()]
    means = {name: torch.tensor([one[name] for one in found]).mean(dim=0).tolist() for name in MEASURES}
    return list(make(next(iter(gts.values())))), means


def print_relative(title: str, series: Series) -> None:
    print(f"### {title}\n")
    keys, losses = series
    table(["loss", *keys], [[name, *(f"{value:.2f}" for value in values)] for name, values in losses.items()])


def print_around_gt(gts: Mapping[str, Tensor]) -> None:
    print("### Around GT: the loss at a change of 0.01, by that of the bicubic enlargement; does it grow throughout?\n")
    rows: dict[str, list[str]] = {name: [] for name in directions(next(iter(gts.values())))}
    for center in CENTER.values():
        loss = texture_loss(center)
        print(f"- at GT itself, center {center}:", [float(loss(gt, gt)) for gt in gts.values()])
        print(
            "- patches' pixels exchanged:",
            [float(loss(shuffled(gt), gt) / loss(bicubic_enlarged(gt), gt)) for gt in gts.values()],
        )
        found = [(around_gt(gt, loss), float(loss(bicubic_enlarged(gt), gt))) for gt in gts.values()]
        for name, row in rows.items():
            mean = sum(one[name][AMPLITUDES.index(0.01)] / scale for one, scale in found) / len(found)
            row += [f"{mean:.3f}", f"{sum(grows(one[name]) for one, _ in found)} of {len(found)}"]
    print()
    table(["change", *(head for name in CENTER for head in (name, "grows"))], [[k, *row] for k, row in rows.items()])


def print_constant_share(gts: Mapping[str, Tensor]) -> None:
    print("### Share of the gradient's energy that is constant within a patch, %\n")
    rows = []
    for photo, gt in gts.items():
        states = (bicubic_enlarged(gt), (bicubic_enlarged(gt) + gt) / 2, gt + 0.02 * noise(gt))
        for name, center in CENTER.items():
            shares = [f"{100 * constant_share(sr, gt, center):.1f}" for sr in states]
            rows.append([f"{photo}, {name}", *shares, "0" if center else f"{100 * mean_share(gt):.1f}"])
    table(["photo", "bicubic", "half way to GT", "GT with noise 0.02", "mean's share of the trace"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the choices, values and gradients of the texture loss.")
    parser.add_argument("--pictures", action="store_true", help="write the pictures to docs/images, too")
    with_pictures = parser.parse_args().pictures
    gts = {photo: photo_crop(photo, SIDE) for photo in PHOTOS}
    print_chosen(gts)
    print_database(gts)
    series = {
        "From bicubic (t = 0) to GT (t = 1)": mixtures,
        "GT blurred, sigma in pixels": blurs,
        "GT with noise of this deviation": noises,
        "GT shifted, in pixels": shifts,
    }
    curves = {title: mean_relative(make, gts) for title, make in series.items()}
    for title, found in curves.items():
        print_relative(title, found)
    print_around_gt(gts)
    print_constant_share(gts)
    if with_pictures:
        from texture_study_pictures import write_curves, write_examples, write_kinds

        losses = {name: GramPatchLoss(center=center) for name, center in CENTER.items()}
        enlarged = {photo: bicubic_enlarged(gt) for photo, gt in gts.items()}
        chosen_by = {
            photo: {name: choose(enlarged[photo], gt, loss) for name, loss in losses.items()}
            for photo, gt in gts.items()
        }
        cat = "chelsea"
        write_examples(IMAGES / "texture_selection.png", enlarged[cat], gts[cat], chosen_by[cat])
        write_kinds(IMAGES / "texture_kinds.png", gts, chosen_by)
        write_curves(IMAGES / "texture_loss.png", curves)


if __name__ == "__main__":
    main()
