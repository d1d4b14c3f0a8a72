"""The discriminator of SRGAN."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gramgan_plugin.archs.tapped_discriminator import SLOPE, TappedDiscriminator

WIDTHS = (1, 2, 4, 8)  # factors of ``num_feat`` in the stages, which halve the side
REDUCTION = 2 ** len(WIDTHS)  # of the side


class SRGANDiscriminator(TappedDiscriminator):
    """SRGAN's discriminator (Ledig et al., CVPR 2017, figure 4): 8 convolutions and two linear layers.

    Each of four stages is a 3x3 convolution of stride 1 and one of stride 2, each followed by BatchNorm (except the
    first) and LeakyReLU(0.2); then Linear(1024), LeakyReLU and Linear(1). It returns logits: the paper's sigmoid is in
    the loss. Convolutions are named as in `GramGANDiscriminator`: number 1 is ``conv0_0``, number 8 ``conv3_1``.

    Args:
        num_in_ch: channels of the input.
        num_feat: channels of the first stage; the next have 2, 4 and 8 times as many.
        input_size: side of the input in pixels, a multiple of 16.

    Raises:
        ValueError: for another input size.

    Example:
        >>> import torch
        >>> net_d = SRGANDiscriminator(num_feat=4, input_size=32)
        >>> logits, features = net_d(torch.rand(2, 3, 32, 32), taps=(5, "conv3_1"))
        >>> logits.shape, {tap: tuple(value.shape) for tap, value in features.items()}
        (torch.Size([2, 1]), {'conv2_0': (2, 16, 8, 8), 'conv3_1': (2, 32, 2, 2)})
    """

    tap_names = tuple(f"conv{stage}_{part}" for stage in range(len(WIDTHS)) for part in range(2))

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, input_size: int = 96) -> None:
        super().__init__()
        if input_size < REDUCTION or input_size % REDUCTION:
            raise ValueError(f"input_size: expected a multiple of {REDUCTION}, got {input_size}")
        self.num_in_ch = num_in_ch
        self.input_size = input_size
        channels = num_in_ch
        for name in self.tap_names:
            stage, part = int(name[4]), int(name[6])
            first = name == self.tap_names[0]
            width = num_feat * WIDTHS[stage]
            self.add_module(name, nn.Conv2d(channels, width, 3, 1 + part, 1, bias=first))
            if not first:
                self.add_module(name.replace("conv", "bn"), nn.BatchNorm2d(width))
            channels = width
        self.linear1 = nn.Linear(channels * (input_size // REDUCTION) ** 2, 1024)
        self.linear2 = nn.Linear(1024, 1)

    def run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits (N, 1) of images (N, num_in_ch, input_size, input_size), and all features."""
        if x.dim() != 4 or x.shape[1:] != (self.num_in_ch, self.input_size, self.input_size):
            raise ValueError(
                f"expected (N, {self.num_in_ch}, {self.input_size}, {self.input_size}), got {tuple(x.shape)}"
            )
        features = {}
        for name in self.tap_names:
            x = self.get_submodule(name)(x)
            if name != self.tap_names[0]:
                x = self.get_submodule(name.replace("conv", "bn"))(x)
            x = features[name] = F.leaky_relu(x, SLOPE, inplace=True)
        return self.linear2(F.leaky_relu(self.linear1(torch.flatten(x, 1)), SLOPE)), features
