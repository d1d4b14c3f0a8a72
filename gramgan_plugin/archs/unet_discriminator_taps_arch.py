"""Real-ESRGAN's U-Net discriminator, with features for the discriminator perceptual loss."""

from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import spectral_norm

from gramgan_plugin.archs.tapped_discriminator import SLOPE, TappedDiscriminator

REDUCTION = 8  # of the side, at the narrowest place


class UNetDiscriminatorSNTaps(TappedDiscriminator):
    """BasicSR's ``UNetDiscriminatorSN`` (Wang et al., Real-ESRGAN, 2021) that also returns its features.

    Three convolutions halve the side and three restore it, with spectral normalisation; its logits are one for each
    pixel. Layers have the names of BasicSR's class, so that its checkpoints fit. Features are those after the
    activation, before a skip connection is added.

    Args:
        num_in_ch: channels of the input.
        num_feat: channels of the first convolution.
        skip_connection: add the features of equal size on the way down to those on the way up.

    Example:
        >>> import torch
        >>> net_d = UNetDiscriminatorSNTaps(num_feat=4)
        >>> logits, features = net_d(torch.rand(2, 3, 16, 24), taps=("conv3", 7))
        >>> logits.shape, {tap: tuple(value.shape) for tap, value in features.items()}
        (torch.Size([2, 1, 16, 24]), {'conv3': (2, 32, 2, 3), 'conv6': (2, 4, 16, 24)})
    """

    tap_names = tuple(f"conv{number}" for number in range(9))

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64, skip_connection: bool = True) -> None:
        super().__init__()
        self.num_in_ch = num_in_ch
        self.skip_connection = skip_connection
        self.conv0 = nn.Conv2d(num_in_ch, num_feat, 3, 1, 1)
        widths = [num_feat * factor for factor in (1, 2, 4, 8, 4, 2, 1, 1, 1)]
        for number in range(1, 9):
            kernel, stride = (4, 2) if number <= 3 else (3, 1)
            conv = nn.Conv2d(widths[number - 1], widths[number], kernel, stride, 1, bias=False)
            self.add_module(f"conv{number}", spectral_norm(conv))
        self.conv9 = nn.Conv2d(num_feat, 1, 3, 1, 1)

    def run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits (N, 1, H, W) of images (N, num_in_ch, H, W), and all features."""
        if x.dim() != 4 or x.shape[1] != self.num_in_ch or any(side < 1 or side % REDUCTION for side in x.shape[2:]):
            raise ValueError(
                f"expected (N, {self.num_in_ch}, H, W), H and W multiples of {REDUCTION}, got {tuple(x.shape)}"
            )
        features: dict[str, Tensor] = {}
        for number, name in enumerate(self.tap_names):
            if 4 <= number <= 6:
                x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = features[name] = F.leaky_relu(self.get_submodule(name)(x), SLOPE, inplace=True)
            if 4 <= number <= 6 and self.skip_connection:
                x = x + features[f"conv{6 - number}"]
        return self.conv9(x), features
