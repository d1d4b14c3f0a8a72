"""SRVGGNetCompact, the small generator of Real-ESRGAN's video and general models, without BasicSR."""

from torch import Tensor, nn
from torch.nn import functional as F

ACTIVATIONS = ("prelu", "relu", "leakyrelu")


class SRVGGNetCompact(nn.Module):
    """Convolutions in a row at LQ's size, and one PixelShuffle; LQ enlarged by repetition is added.

    Args:
        num_in_ch: channels of LQ.
        num_out_ch: channels of SR, the same number.
        num_feat: features.
        num_conv: convolutions between the first and the last.
        upscale: the scale.
        act_type: prelu, relu or leakyrelu.

    Raises:
        ValueError: for another activation.
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_conv: int = 16,
        upscale: int = 4,
        act_type: str = "prelu",
    ) -> None:
        super().__init__()
        if act_type not in ACTIVATIONS:
            raise ValueError(f"act_type: expected one of {', '.join(ACTIVATIONS)}, got {act_type!r}")
        self.upscale = upscale
        self.body = nn.ModuleList([nn.Conv2d(num_in_ch, num_feat, 3, 1, 1), _activation(act_type, num_feat)])
        for _ in range(num_conv):
            self.body.extend([nn.Conv2d(num_feat, num_feat, 3, 1, 1), _activation(act_type, num_feat)])
        self.body.append(nn.Conv2d(num_feat, num_out_ch * upscale**2, 3, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return SR (N, C, s H, s W) of LQ (N, C, H, W) in [0, 1]."""
        feat = x
        for layer in self.body:
            feat = layer(feat)
        return F.pixel_shuffle(feat, self.upscale) + F.interpolate(x, scale_factor=self.upscale, mode="nearest")


def _activation(act_type: str, num_feat: int) -> nn.Module:
    if act_type == "prelu":
        return nn.PReLU(num_parameters=num_feat)
    return nn.ReLU(inplace=True) if act_type == "relu" else nn.LeakyReLU(0.1, inplace=True)
