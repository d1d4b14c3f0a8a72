"""SuRGe's critic."""

from torch import Tensor, nn
from torch.nn import functional as F

from gramgan_plugin.archs.tapped_discriminator import SLOPE, TappedDiscriminator

WIDTHS = (1, 2, 4, 8)  # factors of ``num_feat`` in the stages, which halve the side
REDUCTION = 2 ** len(WIDTHS)  # of the side


class SuRGeCritic(TappedDiscriminator):
    """The critic of SuRGe (Basu et al., arXiv 2404.06294): convolutions without BatchNorm, for WGAN-GP.

    The gradient penalty is of each image by itself, so that no layer may mix images. The layers are a decision of this
    project: those of `SRGANDiscriminator`, with a bias instead of BatchNorm, and with the features' mean over the image
    before the linear layers. Weights start by He's rule, since no BatchNorm restores the scale.

    Args:
        num_in_ch: channels of the input.
        num_feat: channels of the first stage; the next have 2, 4 and 8 times as many.

    Example:
        >>> import torch
        >>> net_d = SuRGeCritic(num_feat=4)
        >>> values, features = net_d(torch.rand(2, 3, 32, 48), taps=(5, "conv3_1"))
        >>> values.shape, {tap: tuple(value.shape) for tap, value in features.items()}
        (torch.Size([2, 1]), {'conv2_0': (2, 16, 8, 12), 'conv3_1': (2, 32, 2, 3)})
    """

    tap_names = tuple(f"conv{stage}_{part}" for stage in range(len(WIDTHS)) for part in range(2))

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64) -> None:
        super().__init__()
        self.num_in_ch = num_in_ch
        channels = num_in_ch
        for name in self.tap_names:
            stage, part = int(name[4]), int(name[6])
            conv = nn.Conv2d(channels, num_feat * WIDTHS[stage], 3, 1 + part, 1)
            nn.init.kaiming_normal_(conv.weight, a=SLOPE)
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
            self.add_module(name, conv)
            channels = conv.out_channels
        self.linear1 = nn.Linear(channels, 1024)
        self.linear2 = nn.Linear(1024, 1)

    def run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return values (N, 1) of images (N, num_in_ch, H, W), H and W multiples of 16, and all features."""
        if x.dim() != 4 or x.shape[1] != self.num_in_ch or any(side < 1 or side % REDUCTION for side in x.shape[2:]):
            raise ValueError(
                f"expected (N, {self.num_in_ch}, H, W), H and W multiples of {REDUCTION}, got {tuple(x.shape)}"
            )
        features = {}
        for name in self.tap_names:
            x = features[name] = F.leaky_relu(self.get_submodule(name)(x), SLOPE, inplace=True)
        return self.linear2(F.leaky_relu(self.linear1(x.mean(dim=(2, 3))), SLOPE)), features
