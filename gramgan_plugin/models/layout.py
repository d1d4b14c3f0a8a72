"""Set the memory layout of networks."""

import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from torch import nn

from gramgan_plugin.archs.gramgan_discriminator_arch import GramGANDiscriminator
from gramgan_plugin.archs.gramgan_realphoto_discriminator_arch import GramGANRealPhotoDiscriminator

# Known to run in channels-last.
CHANNELS_LAST = (RRDBNet, GramGANDiscriminator, GramGANRealPhotoDiscriminator)


def set_layout(net: nn.Module, channels_last: bool) -> bool:
    """Put a network's weights into a memory layout.

    Args:
        net: changed in place, if it is known to run in channels-last.
        channels_last: channels-last if true, else contiguous.

    Returns:
        Whether the network is in channels-last.
    """
    if not isinstance(net, CHANNELS_LAST):
        return False
    net.to(memory_format=torch.channels_last if channels_last else torch.contiguous_format)
    return channels_last
