"""The VGG-style discriminator, with features for the discriminator perceptual loss."""

from collections.abc import Sequence
from typing import overload

import torch
from torch import Tensor, nn

from gramgan_plugin.archs.taps import resolve_taps

# Input size in pixels -> number of stages, each of which halves the side, down to 3 or 4 pixels.
STAGES = {64: 4, 96: 5, 128: 5, 192: 6, 256: 6}
WIDTHS = (1, 2, 4, 8, 8, 8)


class GramGANDiscriminator(nn.Module):
    """VGG-style discriminator that returns its features (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098).

    Each stage is a 3x3 convolution of stride 1 and a 4x4 one of stride 2, each followed by BatchNorm (except
    the first) and LeakyReLU(0.2); two linear layers follow. The paper says only "a variant of the VGG
    network": this one is ESRGAN's. Layers have the names of BasicSR's ``VGGStyleDiscriminator``, whose
    checkpoints for 128 and 256 pixels fit.

    Args:
        num_in_ch: channels of the input.
        num_feat: channels of the first stage; the next have 2, 4 and then 8 times as many.
        input_size: side of the input in pixels: 64, 96, 128, 192 or 256.

    Raises:
        ValueError: for another input size.

    Example:
        >>> import torch
        >>> net_d = GramGANDiscriminator(num_feat=4, input_size=192)
        >>> logits, features = net_d(torch.rand(2, 3, 192, 192), taps=(5, "conv5_0"))
        >>> logits.shape, {tap: tuple(value.shape) for tap, value in features.items()}
        (torch.Size([2, 1]), {'conv2_0': (2, 16, 48, 48), 'conv5_0': (2, 32, 6, 6)})
    """

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, input_size: int = 192) -> None:
        super().__init__()
        if input_size not in STAGES:
            raise ValueError(f"input_size: expected one of {', '.join(map(str, STAGES))}, got {input_size}")
        self.num_in_ch = num_in_ch
        self.input_size = input_size
        self.num_stages = STAGES[input_size]
        channels = num_in_ch
        for stage in range(self.num_stages):
            width = num_feat * WIDTHS[stage]
            first = stage == 0
            self.add_module(f"conv{stage}_0", nn.Conv2d(channels, width, 3, 1, 1, bias=first))
            if not first:
                self.add_module(f"bn{stage}_0", nn.BatchNorm2d(width))
            self.add_module(f"conv{stage}_1", nn.Conv2d(width, width, 4, 2, 1, bias=False))
            self.add_module(f"bn{stage}_1", nn.BatchNorm2d(width))
            channels = width
        side = input_size // 2**self.num_stages
        self.linear1 = nn.Linear(channels * side * side, 100)
        self.linear2 = nn.Linear(100, 1)
        self.lrelu = nn.LeakyReLU(negative_slope=0.2, inplace=True)

    @property
    def tap_names(self) -> tuple[str, ...]:
        """The convolutions in order: number 1 is ``conv0_0``, number 2 ``conv0_1``, ..."""
        return tuple(f"conv{stage}_{part}" for stage in range(self.num_stages) for part in range(2))

    def resolve_taps(self, taps: Sequence[str | int]) -> tuple[str, ...]:
        """Return the canonical names of taps.

        Args:
            taps: names (``conv2_0``) or numbers of convolutions, counted from 1 (5).

        Returns:
            Names, in the same order.

        Raises:
            ValueError: if this network has no such convolution, or a tap is given twice.
        """
        return resolve_taps(taps, self.tap_names, f"at input size {self.input_size}")

    @overload
    def forward(self, x: Tensor, taps: None = None) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, taps: Sequence[str | int]) -> tuple[Tensor, dict[str, Tensor]]: ...

    def forward(self, x: Tensor, taps: Sequence[str | int] | None = None) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the logits of images and, with ``taps``, features.

        Args:
            x: (N, num_in_ch, input_size, input_size).
            taps: the features to return, by name or number; None for none.

        Returns:
            Logits (N, 1); with ``taps``, also a dict from each tap's canonical name to its features (N, C, H,
            W) after the activation, in the order of ``taps``.

        Raises:
            ValueError: for an input of another size, or an unknown tap.
        """
        if x.dim() != 4 or x.shape[1:] != (self.num_in_ch, self.input_size, self.input_size):
            raise ValueError(
                f"expected (N, {self.num_in_ch}, {self.input_size}, {self.input_size}), got {tuple(x.shape)}"
            )
        wanted = () if taps is None else self.resolve_taps(taps)
        features = {}
        for name in self.tap_names:
            x = self.get_submodule(name)(x)
            if name != "conv0_0":
                x = self.get_submodule(name.replace("conv", "bn"))(x)
            x = self.lrelu(x)
            if name in wanted:
                features[name] = x
        x = self.lrelu(self.linear1(torch.flatten(x, 1)))  # flatten, not view: the layout may be channels_last
        logits = self.linear2(x)
        return logits if taps is None else (logits, {name: features[name] for name in wanted})
