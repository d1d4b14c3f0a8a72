"""Networks of this plugin."""

from gramgan_plugin.archs.gramgan_discriminator_arch import GramGANDiscriminator
from gramgan_plugin.archs.gramgan_realphoto_discriminator_arch import GramGANRealPhotoDiscriminator
from gramgan_plugin.archs.srgan_discriminator_arch import SRGANDiscriminator
from gramgan_plugin.archs.srresnet_bn_arch import SRResNetBN

__all__ = ["GramGANDiscriminator", "GramGANRealPhotoDiscriminator", "SRGANDiscriminator", "SRResNetBN"]
