"""The discriminator of GramGAN-RealPhoto's recipe: no BatchNorm, any crop size."""

from torch import Tensor, nn

from gramgan_plugin.archs.tapped_discriminator import SLOPE, TappedDiscriminator

# Factors of ``num_feat`` in the five stages, which halve the side; one convolution of the last width follows.
WIDTHS = (1, 2, 4, 8, 8)
SMALLEST = 2 ** len(WIDTHS)


class GramGANRealPhotoDiscriminator(TappedDiscriminator):
    """Discriminator of 11 convolutions without BatchNorm, for images of at least 32x32 pixels.

    Five stages of a 3x3 convolution of stride 1 and a 4x4 one of stride 2, then an eleventh 3x3 convolution, each
    followed by LeakyReLU(0.2); the features' mean over the image goes through two linear layers. GramGAN-RealPhoto
    defines 11 convolutions, no BatchNorm and adaptive pooling; the widths, the pooling to one value per channel and
    the initialisation are decisions of this project. Weights start by He's rule: with torch's default, and no BatchNorm
    to restore the scale, the first logits of all images would agree to four digits.

    Convolutions are named as in `GramGANDiscriminator`, and the 5th and the 11th, which the discriminator
    perceptual loss reads, have the same names in both: ``conv2_0`` and ``conv5_0``.

    Args:
        num_in_ch: channels of the input.
        num_feat: channels of the first stage; the next have 2, 4 and then 8 times as many.

    Raises:
        ValueError: for less than one channel.

    Example:
        >>> import torch
        >>> net_d = GramGANRealPhotoDiscriminator(num_feat=4)
        >>> logits, features = net_d(torch.rand(2, 3, 75, 130), taps=(5, 11))
        >>> logits.shape, {tap: tuple(value.shape) for tap, value in features.items()}
        (torch.Size([2, 1]), {'conv2_0': (2, 16, 18, 32), 'conv5_0': (2, 32, 2, 4)})
    """

    tap_names = (*(f"conv{stage}_{part}" for stage in range(len(WIDTHS)) for part in range(2)), f"conv{len(WIDTHS)}_0")

    def __init__(self, num_in_ch: int = 3, num_feat: int = 64) -> None:
        super().__init__()
        if num_in_ch < 1 or num_feat < 1:
            raise ValueError(f"num_in_ch and num_feat must be at least 1, got {num_in_ch} and {num_feat}")
        self.num_in_ch = num_in_ch
        channels = num_in_ch
        for stage, factor in enumerate(WIDTHS):
            width = num_feat * factor
            self.add_module(f"conv{stage}_0", nn.Conv2d(channels, width, 3, 1, 1))
            self.add_module(f"conv{stage}_1", nn.Conv2d(width, width, 4, 2, 1))
            channels = width
        self.add_module(self.tap_names[-1], nn.Conv2d(channels, channels, 3, 1, 1))
        self.linear1 = nn.Linear(channels, 100)
        self.linear2 = nn.Linear(100, 1)
        self.lrelu = nn.LeakyReLU(negative_slope=SLOPE, inplace=True)
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module.bias is not None:
                nn.init.kaiming_normal_(module.weight, a=SLOPE)
                nn.init.zeros_(module.bias)

    def run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits (N, 1) of images (N, num_in_ch, H, W), both sides at least 32, and all features."""
        if x.dim() != 4 or x.shape[1] != self.num_in_ch or min(x.shape[2:]) < SMALLEST:
            raise ValueError(f"expected (N, {self.num_in_ch}, H, W), H and W at least {SMALLEST}, got {tuple(x.shape)}")
        features = {}
        for name in self.tap_names:
            x = features[name] = self.lrelu(self.get_submodule(name)(x))
        # The mean equals adaptive pooling to 1x1, and its backward is deterministic on GPUs.
        return self.linear2(self.lrelu(self.linear1(x.mean(dim=(2, 3))))), features
