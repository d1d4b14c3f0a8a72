"""Networks of this plugin."""

from gramgan_plugin.archs.gramgan_discriminator_arch import GramGANDiscriminator
from gramgan_plugin.archs.gramgan_realphoto_discriminator_arch import GramGANRealPhotoDiscriminator
from gramgan_plugin.archs.srgan_discriminator_arch import SRGANDiscriminator
from gramgan_plugin.archs.srresnet_bn_arch import SRResNetBN
from gramgan_plugin.archs.surge_critic_arch import SuRGeCritic
from gramgan_plugin.archs.surgenet_arch import SuRGeNet
from gramgan_plugin.archs.unet_discriminator_taps_arch import UNetDiscriminatorSNTaps

__all__ = [
    "GramGANDiscriminator",
    "GramGANRealPhotoDiscriminator",
    "SRGANDiscriminator",
    "SRResNetBN",
    "SuRGeCritic",
    "SuRGeNet",
    "UNetDiscriminatorSNTaps",
]
