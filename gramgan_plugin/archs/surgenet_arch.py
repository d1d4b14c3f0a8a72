"""SuRGe's generator, which mixes features of several depths by learnable convex weights."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (2, 4, 8)


class ConvexMix(nn.Module):
    """A convex combination of features: its weights are the softmax of free parameters, equal at the start."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(count))

    def forward(self, *features: Tensor) -> Tensor:
        """Return the weighted sum of ``count`` tensors of one shape."""
        shares = self.weights.softmax(dim=0)
        return torch.stack([share * one for share, one in zip(shares, features, strict=True)]).sum(dim=0)


class SuRGeBlock(nn.Module):
    """Two convolutions in a residual, without BatchNorm."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape as ``x`` (N, num_feat, H, W)."""
        result: Tensor = x + self.conv2(self.prelu(self.conv1(x)))
        return result


class SuRGeNet(nn.Module):
    """The generator of SuRGe (Basu et al., arXiv 2404.06294).

    With I0 the features of a 9x9 convolution and C0 those of the first residual blocks after it, F0 = mix(I0, C0). A
    convolution widens F0 to I1, twice as many channels; C1 are the features of the second residual blocks after it, and
    F1 = mix(I1, C1, skip). Each mix is convex, with learnable weights. F1 is enlarged in steps of 2, and a 9x9
    convolution and (tanh(x) + 1) / 2 give SR in [0, 1].

    The paper states the mixes, the 9x9 kernels, the numbers of blocks and channels, and two steps of enlargement.
    Decisions of this project: skip is I0 through a 1x1 convolution; a block is a convolution, PReLU and a convolution,
    without BatchNorm; each PReLU has one slope; a step is the nearest pixel, a 3x3 convolution and PReLU.

    Args:
        num_in_ch: channels of LQ.
        num_out_ch: channels of SR.
        num_feat: features of the first blocks; the second have twice as many.
        num_block: residual blocks of each of the two.
        upscale: 2, 4 or 8.

    Raises:
        ValueError: for another scale.

    Example:
        >>> import torch
        >>> SuRGeNet(num_feat=4, num_block=1)(torch.zeros(1, 3, 6, 4)).shape
        torch.Size([1, 3, 24, 16])
    """

    def __init__(
        self, num_in_ch: int = 3, num_out_ch: int = 3, num_feat: int = 64, num_block: int = 8, upscale: int = 4
    ) -> None:
        super().__init__()
        if upscale not in SCALES:
            raise ValueError(f"upscale: expected one of {', '.join(map(str, SCALES))}, got {upscale}")
        self.upscale = upscale
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 9, 1, 4)
        self.prelu_first = nn.PReLU()
        self.body0 = nn.Sequential(*(SuRGeBlock(num_feat) for _ in range(num_block)))
        self.mix0 = ConvexMix(2)
        wide = 2 * num_feat
        self.conv_wide = nn.Conv2d(num_feat, wide, 3, 1, 1)
        self.prelu_wide = nn.PReLU()
        self.body1 = nn.Sequential(*(SuRGeBlock(wide) for _ in range(num_block)))
        self.conv_skip = nn.Conv2d(num_feat, wide, 1)
        self.mix1 = ConvexMix(3)
        steps = range(upscale.bit_length() - 1)
        self.upconvs = nn.ModuleList(nn.Sequential(nn.Conv2d(wide, wide, 3, 1, 1), nn.PReLU()) for _ in steps)
        self.conv_last = nn.Conv2d(wide, num_out_ch, 9, 1, 4)

    def forward(self, x: Tensor) -> Tensor:
        """Return SR (N, num_out_ch, s H, s W) in [0, 1] of LQ (N, num_in_ch, H, W) in [0, 1]."""
        first = self.prelu_first(self.conv_first(x))
        mixed = self.mix0(first, self.body0(first))
        wide = self.prelu_wide(self.conv_wide(mixed))
        feat = self.mix1(wide, self.body1(wide), self.conv_skip(first))
        for upconv in self.upconvs:
            feat = upconv(F.interpolate(feat, scale_factor=2, mode="nearest"))
        return (torch.tanh(self.conv_last(feat)) + 1) / 2
