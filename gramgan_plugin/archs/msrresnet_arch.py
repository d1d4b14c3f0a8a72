"""MSRResNet, SRGAN's generator without BatchNorm as the ESRGAN repositories train it, without BasicSR."""

from torch import Tensor, nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two convolutions in a residual."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape as ``x`` (N, num_feat, H, W)."""
        result: Tensor = x + self.conv2(F.relu(self.conv1(x)))
        return result


class MSRResNet(nn.Module):
    """Residual blocks at LQ's size and PixelShuffle; LQ enlarged bilinearly is added.

    Args:
        num_in_ch: channels of LQ.
        num_out_ch: channels of SR, the same number.
        num_feat: features.
        num_block: residual blocks.
        upscale: 2, 3 or 4.

    Raises:
        ValueError: for another scale.
    """

    def __init__(
        self, num_in_ch: int = 3, num_out_ch: int = 3, num_feat: int = 64, num_block: int = 16, upscale: int = 4
    ) -> None:
        super().__init__()
        if upscale not in (2, 3, 4):
            raise ValueError(f"upscale: expected 2, 3 or 4, got {upscale}")
        self.upscale = upscale
        self.factors = (2, 2) if upscale == 4 else (upscale,)
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        self.body = nn.Sequential(*(ResidualBlock(num_feat) for _ in range(num_block)))
        for number, factor in enumerate(self.factors, start=1):
            setattr(self, f"upconv{number}", nn.Conv2d(num_feat, num_feat * factor**2, 3, 1, 1))
        self.conv_hr = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.conv_last = nn.Conv2d(num_feat, num_out_ch, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return SR (N, C, s H, s W) of LQ (N, C, H, W) in [0, 1]."""
        feat = self.body(F.leaky_relu(self.conv_first(x), 0.1))
        for number, factor in enumerate(self.factors, start=1):
            feat = F.leaky_relu(F.pixel_shuffle(getattr(self, f"upconv{number}")(feat), factor), 0.1)
        result: Tensor = self.conv_last(F.leaky_relu(self.conv_hr(feat), 0.1))
        return result + F.interpolate(x, scale_factor=self.upscale, mode="bilinear", align_corners=False)
