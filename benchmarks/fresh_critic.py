"""Train a critic afresh on the results of each network, and print the Wasserstein distance to GT that it finds.

    python benchmarks/fresh_critic.py l1=A.pth surge=B.pth --gt GT.lmdb --lq LQ_x4.lmdb --data datasets --sets Set14

D of a run has seen only the images of its own run, and its level drifts: its loss cannot be compared between networks.
Here each network's results meet critics (SuRGe's, with WGAN-GP) that start from the same weights and see the same crops
of training photos. The distance E C(GT) - E C(SR) is that of the test sets' tiles, which the critics have not seen;
--seeds critics give a mean and a deviation.
"""

import argparse
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gramgan_plugin.archs.surge_critic_arch import SuRGeCritic
from gramgan_plugin.checkpoints.networks import load_network
from gramgan_plugin.checkpoints.weights_cache import resolve_weights
from gramgan_plugin.data.paired_sr_dataset import PairedSRDataset
from gramgan_plugin.evaluation.benchmark_sets import benchmark_sets
from gramgan_plugin.functional.adversarial import discriminator_loss
from gramgan_plugin.losses import GradientPenalty
from gramgan_plugin.utils.progress import tracked

SIDE, BATCH, RATE = 96, 8, 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="LABEL=FILE")
    parser.add_argument("--gt", required=True, help="of the training photos; an LMDB or a folder")
    parser.add_argument("--lq", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", required=True)
    parser.add_argument("--iterations", type=int, default=300)
    parser.add_argument("--seeds", type=int, default=3)
    args = parser.parse_args()
    options = {"phase": "train", "scale": 4, "gt_size": SIDE, "dataroot_gt": args.gt, "dataroot_lq": args.lq}
    photos = PairedSRDataset(options)
    sets = benchmark_sets(args.data, 4, args.sets)
    print(f"| model | {' | '.join(one.name for one in sets)} |")
    print("|---|" + "---:|" * len(sets))
    for text in args.models:
        label, _, file = text.partition("=")
        net = load_network(resolve_weights(file)).net.eval()
        found = []
        for seed in range(args.seeds):
            critic = trained_critic(net, photos, args.iterations, seed, label)
            found.append([distance(critic, net, one) for one in sets])
        means, deviations = np.mean(found, axis=0), np.std(found, axis=0, ddof=min(1, args.seeds - 1))
        cells = [f"{mean:.4f} +- {deviation:.4f}" for mean, deviation in zip(means, deviations, strict=True)]
        print(f"| {label} | {' | '.join(cells)} |", flush=True)


def trained_critic(net: torch.nn.Module, photos: Any, iterations: int, seed: int, label: str) -> SuRGeCritic:
    """Return a critic of GT and a network's SR."""
    random.seed(seed)
    torch.manual_seed(seed)
    critic = SuRGeCritic(num_feat=16)
    optimizer = torch.optim.Adam(critic.parameters(), lr=RATE, betas=(0.5, 0.9))
    penalty = GradientPenalty(kind="wgan_gp", loss_weight=10)
    for _ in tracked(range(iterations), f"{label}, critic {seed}", sys.stderr.isatty()):
        items = [photos[random.randrange(len(photos))] for _ in range(BATCH)]
        gt, lq = (torch.stack([item[key] for item in items]).float() / 255 for key in ("gt", "lq"))
        sr = results(net, lq)
        losses = discriminator_loss(critic(gt), critic(sr), "wgan")
        loss = sum(losses) + penalty(critic, gt, sr, torch.rand(BATCH))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return critic.eval()


@torch.no_grad()
def distance(critic: SuRGeCritic, net: torch.nn.Module, images: Any) -> float:
    """Return E C(GT) - E C(SR) over all tiles of a test set."""
    differences = []
    for image in images.images:
        lq, gt = (torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255 for pixels in image.read(4))
        sr = results(net, lq)
        differences.append((critic(tiles(gt)) - critic(tiles(sr))).flatten())
    return float(torch.cat(differences).mean())


@torch.no_grad()
def results(net: torch.nn.Module, lq: Tensor) -> Tensor:
    """Return SR with the levels of 8 bits, as GT has them."""
    return (net(lq).clamp(0, 1) * 255).round() / 255


def tiles(image: Tensor) -> Tensor:
    """Return the whole tiles (N, 3, SIDE, SIDE) of an image (1, 3, H, W)."""
    rows = image.unfold(2, SIDE, SIDE).unfold(3, SIDE, SIDE)
    return rows.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, SIDE, SIDE)


if __name__ == "__main__":
    main()
