"""RRDBNet, the generator of ESRGAN (Wang et al. 2018, section 3.1), in every size of the family, without BasicSR."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2  # of all leaky ReLUs
RESIDUAL = 0.2  # factor of each residual


class ResidualDenseBlock(nn.Module):
    """Five convolutions, each of which sees the outputs of all before it."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        for number in range(4):
            setattr(self, f"conv{number + 1}", nn.Conv2d(num_feat + number * num_grow_ch, num_grow_ch, 3, 1, 1))
        self.conv5 = nn.Conv2d(num_feat + 4 * num_grow_ch, num_feat, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape as ``x`` (N, num_feat, H, W)."""
        features = [x]
        for number in range(1, 5):
            features.append(F.leaky_relu(getattr(self, f"conv{number}")(torch.cat(features, 1)), SLOPE))
        result: Tensor = self.conv5(torch.cat(features, 1))
        return result * RESIDUAL + x


class RRDB(nn.Module):
    """Three dense blocks in a residual."""

    def __init__(self, num_feat: int, num_grow_ch: int) -> None:
        super().__init__()
        self.rdb1 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb2 = ResidualDenseBlock(num_feat, num_grow_ch)
        self.rdb3 = ResidualDenseBlock(num_feat, num_grow_ch)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape as ``x`` (N, num_feat, H, W)."""
        result: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return result * RESIDUAL + x


class RRDBNet(nn.Module):
    """ESRGAN's generator under BasicSR's tensor names, for any number of upsampling layers.

    BasicSR's class has two of these and scales 1, 2 and 4 (by ``unshuffle``); files of the family also have none, one,
    three or four.

    Args:
        num_in_ch: channels of LQ.
        num_out_ch: channels of SR.
        num_feat: features.
        num_block: RRDBs.
        num_grow_ch: features that each convolution of a dense block adds.
        num_upsample: upsampling layers, each by 2.
        unshuffle: side of the squares of LQ that become channels first (Real-ESRGAN's x2 and x1).

    Example:
        >>> import torch
        >>> RRDBNet(num_feat=4, num_block=1, num_grow_ch=2, unshuffle=2)(torch.zeros(1, 3, 6, 4)).shape
        torch.Size([1, 3, 12, 8])
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 23,
        num_grow_ch: int = 32,
        num_upsample: int = 2,
        unshuffle: int = 1,
    ) -> None:
        super().__init__()
        self.num_feat, self.num_block, self.num_grow_ch = num_feat, num_block, num_grow_ch
        self.unshuffle = unshuffle
        self.conv_first = nn.Conv2d(num_in_ch * unshuffle**2, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*(RRDB(num_feat, num_grow_ch) for _ in range(num_block)))
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.upsampling = [f"conv_up{number + 1}" for number in range(num_upsample)]
        for name in self.upsampling:
            setattr(self, name, nn.Conv2d(num_feat, num_feat, 3, 1, 1))
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def trunk(self, x: Tensor) -> Tensor:
        """Return features (N, num_feat, H / u, W / u) of LQ (N, num_in_ch, H, W), u being ``unshuffle``."""
        feat = self.conv_first(F.pixel_unshuffle(x, self.unshuffle) if self.unshuffle > 1 else x)
        result: Tensor = feat + self.conv_body(self.body(feat))
        return result

    def head(self, feat: Tensor) -> Tensor:
        """Return SR of the features; each of its pixels depends on at most 3 pixels of these on either side."""
        for name in self.upsampling:
            feat = F.leaky_relu(getattr(self, name)(F.interpolate(feat, scale_factor=2, mode="nearest")), SLOPE)
        result: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(feat), SLOPE))
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Return SR (N, num_out_ch, s H, s W) of LQ (N, num_in_ch, H, W) in [0, 1]; H, W multiples of ``unshuffle``."""
        return self.head(self.trunk(x))
