"""Networks of this plugin's own."""

from gramgan_plugin.archs.gramgan_discriminator_arch import GramGANDiscriminator

__all__ = ["GramGANDiscriminator"]
