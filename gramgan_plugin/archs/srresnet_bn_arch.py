"""SRResNet with BatchNorm, the generator of SRGAN as it was published."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (2, 4, 8)
OUTPUTS = ("linear", "tanh")


class SRResNetBlock(nn.Module):
    """Two convolutions with BatchNorm in a residual."""

    def __init__(self, num_feat: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.bn1 = nn.BatchNorm2d(num_feat)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.bn2 = nn.BatchNorm2d(num_feat)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape as ``x`` (N, num_feat, H, W)."""
        result: Tensor = x + self.bn2(self.conv2(self.prelu(self.bn1(self.conv1(x)))))
        return result


class SRResNetBN(nn.Module):
    """SRResNet, the generator of SRGAN (Ledig et al., CVPR 2017, figure 4); BasicSR's ``MSRResNet`` has no BatchNorm.

    A 9x9 convolution and PReLU, residual blocks, a 3x3 convolution with BatchNorm, and a skip connection around these;
    then a convolution, PixelShuffle(2) and PReLU for each doubling, and a 9x9 convolution.

    The paper has SR in [-1, 1]; here it is in [0, 1], as everywhere in this project. With ``output: linear`` both are
    the same family of functions: the last convolution holds the map (x + 1) / 2. A squared error in [-1, 1] is four
    times that in [0, 1]. One slope for each PReLU, and convolutions with bias before BatchNorm, are decisions of this
    project, which the public checkpoints fit.

    Args:
        num_in_ch: channels of LQ.
        num_out_ch: channels of SR.
        num_feat: features.
        num_block: residual blocks.
        upscale: 2, 4 or 8.
        output: ``linear``, or ``tanh`` for (tanh(x) + 1) / 2, which keeps SR in [0, 1]. The last convolution is
            ``conv_last`` or ``conv_tanh``, so that a file of weights says which of the two it is for.

    Raises:
        ValueError: for another scale or output.

    Example:
        >>> import torch
        >>> SRResNetBN(num_feat=4, num_block=1, upscale=2)(torch.zeros(1, 3, 6, 4)).shape
        torch.Size([1, 3, 12, 8])
    """

    def __init__(
        self,
        num_in_ch: int = 3,
        num_out_ch: int = 3,
        num_feat: int = 64,
        num_block: int = 16,
        upscale: int = 4,
        output: str = "linear",
    ) -> None:
        super().__init__()
        if upscale not in SCALES:
            raise ValueError(f"upscale: expected one of {', '.join(map(str, SCALES))}, got {upscale}")
        if output not in OUTPUTS:
            raise ValueError(f"output: expected one of {', '.join(OUTPUTS)}, got {output!r}")
        self.output = output
        self.num_stages = upscale.bit_length() - 1
        self.conv_first = nn.Conv2d(num_in_ch, num_feat, 9, 1, 4)
        self.prelu_first = nn.PReLU()
        self.body = nn.Sequential(*(SRResNetBlock(num_feat) for _ in range(num_block)))
        self.conv_body = nn.Conv2d(num_feat, num_feat, 3, 1, 1)
        self.bn_body = nn.BatchNorm2d(num_feat)
        for stage in range(1, self.num_stages + 1):
            self.add_module(f"upconv{stage}", nn.Conv2d(num_feat, num_feat * 4, 3, 1, 1))
            self.add_module(f"prelu_up{stage}", nn.PReLU())
        self.add_module("conv_last" if output == "linear" else "conv_tanh", nn.Conv2d(num_feat, num_out_ch, 9, 1, 4))

    def forward(self, x: Tensor) -> Tensor:
        """Return SR (N, num_out_ch, s H, s W) of LQ (N, num_in_ch, H, W) in [0, 1]."""
        first = self.prelu_first(self.conv_first(x))
        feat = first + self.bn_body(self.conv_body(self.body(first)))
        for stage in range(1, self.num_stages + 1):
            enlarged = F.pixel_shuffle(self.get_submodule(f"upconv{stage}")(feat), 2)
            feat = self.get_submodule(f"prelu_up{stage}")(enlarged)
        if self.output == "tanh":
            return (torch.tanh(self.get_submodule("conv_tanh")(feat)) + 1) / 2
        result: Tensor = self.get_submodule("conv_last")(feat)
        return result
