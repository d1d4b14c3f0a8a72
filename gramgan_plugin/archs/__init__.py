"""Networks of this plugin."""

from gramgan_plugin.archs.gramgan_discriminator_arch import GramGANDiscriminator
from gramgan_plugin.archs.gramgan_realphoto_discriminator_arch import GramGANRealPhotoDiscriminator

__all__ = ["GramGANDiscriminator", "GramGANRealPhotoDiscriminator"]
