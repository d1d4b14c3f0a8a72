"""SRGAN's generator under the layer names of two public repositories."""

import torch
from torch import Tensor, nn


def _enlarging(feat: int) -> list[nn.Module]:
    return [nn.Conv2d(feat, 4 * feat, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()]


class NumberedBlocks(nn.Module):
    """leftthomas/SRGAN: ``block1`` to ``block8`` for five residual blocks; SR is (tanh + 1) / 2."""

    def __init__(self, feat: int = 8, blocks: int = 5, stages: int = 2) -> None:
        super().__init__()
        self.count = blocks
        self.block1 = nn.Sequential(nn.Conv2d(3, feat, 9, padding=4), nn.PReLU())
        for number in range(2, blocks + 2):
            block = nn.Module()
            block.conv1, block.bn1 = nn.Conv2d(feat, feat, 3, padding=1), nn.BatchNorm2d(feat)
            block.prelu = nn.PReLU()
            block.conv2, block.bn2 = nn.Conv2d(feat, feat, 3, padding=1), nn.BatchNorm2d(feat)
            self.add_module(f"block{number}", block)
        self.add_module(f"block{blocks + 2}", nn.Sequential(nn.Conv2d(feat, feat, 3, padding=1), nn.BatchNorm2d(feat)))
        end = nn.Sequential()
        for number in range(stages):
            step = nn.Module()
            step.conv, step.pixel_shuffle, step.prelu = _enlarging(feat)
            end.add_module(str(number), step)
        end.add_module(str(stages), nn.Conv2d(feat, 3, 9, padding=4))
        self.add_module(f"block{blocks + 3}", end)

    def forward(self, x: Tensor) -> Tensor:
        first = x = self.block1(x)
        for number in range(2, self.count + 2):
            block = getattr(self, f"block{number}")
            x = x + block.bn2(block.conv2(block.prelu(block.bn1(block.conv1(x)))))
        x = first + getattr(self, f"block{self.count + 2}")(x)
        *steps, last = getattr(self, f"block{self.count + 3}")
        for step in steps:
            x = step.prelu(step.pixel_shuffle(step.conv(x)))
        return (torch.tanh(last(x)) + 1) / 2


class _Inside(nn.Module):
    """A sequence under a name, with or without a residual."""

    def __init__(self, name: str, layers: list[nn.Module], residual: bool) -> None:
        super().__init__()
        self.name, self.residual = name, residual
        self.add_module(name, nn.Sequential(*layers))

    def forward(self, x: Tensor) -> Tensor:
        result = getattr(self, self.name)(x)
        return x + result if self.residual else result


class NamedParts(nn.Module):
    """Lornatang/SRGAN-PyTorch: ``trunk``, ``upsampling``; no bias before BatchNorm; SR is clipped to [0, 1]."""

    def __init__(self, feat: int = 8, blocks: int = 16, stages: int = 2) -> None:
        super().__init__()

        def normed() -> list[nn.Module]:
            return [nn.Conv2d(feat, feat, 3, padding=1, bias=False), nn.BatchNorm2d(feat)]

        self.conv1 = nn.Sequential(nn.Conv2d(3, feat, 9, padding=4), nn.PReLU())
        self.trunk = nn.Sequential(*(_Inside("rcb", [*normed(), nn.PReLU(), *normed()], True) for _ in range(blocks)))
        self.conv2 = nn.Sequential(*normed())
        self.upsampling = nn.Sequential(*(_Inside("upsample_block", _enlarging(feat), False) for _ in range(stages)))
        self.conv3 = nn.Conv2d(feat, 3, 9, padding=4)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        x = self.upsampling(first + self.conv2(self.trunk(first)))
        return self.conv3(x).clamp(0, 1)


def used(net: nn.Module, seed: int = 0) -> nn.Module:
    """Give a network's BatchNorms and slopes other values than a new network's, and return it in evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            module.num_batches_tracked.fill_(7)
        elif isinstance(module, nn.PReLU):
            module.weight.data.copy_(torch.rand(1, generator=generator))
    return net.eval()
