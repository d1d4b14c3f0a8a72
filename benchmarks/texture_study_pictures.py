"""Draw the pictures of texture_study.py: targets of some patches, maps of their kinds, curves of the loss."""

import io
from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import PIL.Image
import torch
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor
from torch.nn import functional as F

from gramgan_plugin.functional import Targets, extract_patches

plt.switch_backend("Agg")

KINDS = {"GT, own place": "#f2c14e", "GT, elsewhere": "#2a9d8f", "GT x1/2": "#c44536", "GT, warped": "#4361a8"}
SIZE = 4
AROUND = 4  # pixels shown around a patch


def kinds_of(targets: Targets) -> Tensor:
    """Return each target's index in ``KINDS``, (P,)."""
    own = torch.arange(targets.index.shape[1])
    kind = targets.kind[0] + 1
    kind[targets.index[0] == own] = 0
    return kind


def pixels(image: Tensor) -> np.ndarray:
    """Return (1, 3, H, W) in matplotlib's layout."""
    return image[0].permute(1, 2, 0).clamp(0, 1).numpy()


def place(images: tuple[Tensor, ...], index: int) -> tuple[Tensor, int, int]:
    """Return a candidate's image, and the patch's upper left pixel (y, x) in it."""
    for image in images:
        columns = image.shape[3] // SIZE
        count = image.shape[2] // SIZE * columns
        if index < count:
            return image, index // columns * SIZE, index % columns * SIZE
        index -= count
    raise ValueError("no such candidate")


def examples(gt: Tensor, targets: Targets, each: int = 2) -> list[int]:
    """Return textured patches: in random order, the first ``each`` for each kind of target."""
    contrast = extract_patches(gt, SIZE).std(dim=2).mean(dim=-1)[0]
    kind = kinds_of(targets)
    order = torch.randperm(len(kind), generator=torch.Generator().manual_seed(2))
    textured = order[contrast[order] > contrast.quantile(0.8)]
    return [int(one) for number in (1, 2, 3) for one in textured[kind[textured] == number][:each]]


def show_patch(axes: plt.Axes, image: Tensor, y: int, x: int, colour: str) -> None:
    """Draw a patch with its surroundings."""
    image = F.pad(image, (AROUND,) * 4, mode="replicate")
    side = SIZE + 2 * AROUND
    axes.imshow(pixels(image)[y : y + side, x : x + side], interpolation="nearest")
    box = (AROUND - 0.5, AROUND - 0.5)
    axes.add_patch(Rectangle(box, SIZE, SIZE, fill=False, edgecolor=colour, linewidth=1.6))
    axes.set_xticks([])
    axes.set_yticks([])


def write_examples(path: Path, sr: Tensor, gt: Tensor, chosen_by: Mapping[str, Targets]) -> None:
    """Draw patches of SR, GT's at the same place and the targets; on the left their positions in GT."""
    chosen = examples(gt, chosen_by["centred"])
    figure = plt.figure(figsize=(9.6, 4.4), dpi=100, layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1, 1.45))
    whole = left.subplots()
    whole.imshow(pixels(gt))
    whole.set_axis_off()
    whole.set_title("GT: patch and chosen (centred)", fontsize=9)
    grid = right.subplots(2 + len(chosen_by), len(chosen))
    for row, name in enumerate(["SR (bicubic)", "GT, own place", *(f"chosen,\n{name}" for name in chosen_by)]):
        grid[row, 0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    for column, number in enumerate(chosen):
        y, x = number // (gt.shape[3] // SIZE) * SIZE, number % (gt.shape[3] // SIZE) * SIZE
        show_patch(grid[0, column], sr, y, x, "white")
        show_patch(grid[1, column], gt, y, x, "white")
        grid[0, column].set_title(str(column + 1), fontsize=9)
        for row, targets in enumerate(chosen_by.values(), start=2):
            name, colour = list(KINDS.items())[int(kinds_of(targets)[number])]
            images = targets.candidates.images
            show_patch(grid[row, column], *place(images, int(targets.index[0, number])), colour)
            grid[row, column].set_xlabel(name, fontsize=7)
        centre = chosen_by["centred"].candidates.centres()[chosen_by["centred"].index[0, number]].tolist()
        whole.add_patch(Rectangle((x - 0.5, y - 0.5), SIZE, SIZE, fill=False, edgecolor="white"))
        colour = list(KINDS.values())[int(kinds_of(chosen_by["centred"])[number])]
        whole.annotate(
            "", (centre[1], centre[0]), (x + 2, y + 2), arrowprops={"arrowstyle": "->", "color": colour, "lw": 1.4}
        )
        whole.text(x + 5, y - 1, str(column + 1), color="white", fontsize=8, weight="bold")
    save(figure, path)


def write_kinds(path: Path, gts: Mapping[str, Tensor], chosen_by: Mapping[str, Mapping[str, Targets]]) -> None:
    """Draw for each photo GT and the kinds of all targets, centred and not."""
    arms = list(next(iter(chosen_by.values())))
    figure, grid = plt.subplots(len(arms) + 1, len(gts), figsize=(6.6, 7.2), dpi=100, layout="constrained")
    colours = ListedColormap(list(KINDS.values()))
    for column, (photo, gt) in enumerate(gts.items()):
        grid[0, column].imshow(pixels(gt))
        grid[0, column].set_title(photo, fontsize=9)
        for row, name in enumerate(arms, start=1):
            kind = kinds_of(chosen_by[photo][name]).view(gt.shape[2] // SIZE, -1)
            grid[row, column].imshow(kind.numpy(), cmap=colours, vmin=-0.5, vmax=len(KINDS) - 0.5)
            grid[row, 0].set_ylabel(name, fontsize=9)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    handles = [Patch(color=colour, label=name) for name, colour in KINDS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    save(figure, path)


def write_curves(path: Path, curves: Mapping[str, tuple[list[str], Mapping[str, list[float]]]]) -> None:
    """Draw a panel for each series: every loss against the change, relative to its value at bicubic."""
    figure, panels = plt.subplots(1, len(curves), figsize=(11, 3.1), dpi=100, layout="constrained")
    for axes, (title, (keys, losses)) in zip(panels, curves.items(), strict=True):
        for number, (name, values) in enumerate(losses.items()):
            dashes = {"one-to-one Gram, centred": "--", "L_PT, centred, beta 0": ":"}
            style = {"color": f"C{number}", "marker": ".", "linewidth": 1.4, "linestyle": dashes.get(name, "-")}
            axes.plot([float(key) for key in keys], values, label=name, **style)
        axes.set_title(title, fontsize=8)
        axes.set_ylim(0, 2.6)
        axes.axhline(1, color="0.8", linewidth=0.8, zorder=0)
        axes.tick_params(labelsize=7)
    panels[0].set_ylabel("loss / loss at bicubic", fontsize=8)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, fontsize=8, frameon=False
    )
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure in 256 colours."""
    drawn = io.BytesIO()
    figure.savefig(drawn)
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    with PIL.Image.open(drawn) as image:
        image.convert("RGB").quantize(256, dither=PIL.Image.Dither.NONE).save(path, optimize=True)
