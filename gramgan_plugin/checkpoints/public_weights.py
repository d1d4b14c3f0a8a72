"""The public checkpoints that option files and commands can name: where they are, their licences, sizes and SHA-256.

The licence is that of the project that publishes a file; the photos on which a network was trained may set limits of
their own (docs/weights.md). Imports nothing heavy.
"""

from dataclasses import dataclass

from gramgan_plugin.errors import UserError
from gramgan_plugin.utils.text import did_you_mean, shown

LARGEST_OF_UNKNOWN_SIZE = 100 * 10**6  # bytes; both files of unknown size have 67 MB
SEE_LIST = "; `basicsr weights list` shows the names"


@dataclass(frozen=True)
class PublicWeights:
    """A public checkpoint.

    Attributes:
        name: the word that stands for it in options and commands.
        file: the name of its file.
        url: where it is downloaded from; empty for those that come with this package.
        licence: SPDX identifier of the licence under which it is published.
        about: what it is.
        sha256: SHA-256 of the file in hex, or the first digits of it if no more is published.
        size: bytes, or None if the exact number is not published.
    """

    name: str
    file: str
    url: str
    licence: str
    about: str
    sha256: str
    size: int | None

    @property
    def max_bytes(self) -> int:
        """The bytes at which a download is refused if it has more."""
        return LARGEST_OF_UNKNOWN_SIZE if self.size is None else self.size

    @property
    def shipped(self) -> bool:
        """Whether it comes with this package."""
        return not self.url

    @property
    def whole_sha256(self) -> bool:
        """Whether ``sha256`` is the whole one, not its beginning."""
        return len(self.sha256) == 64


_REAL_ESRGAN = "https://github.com/xinntao/Real-ESRGAN/releases/download"
_TORCHVISION = "https://download.pytorch.org/models"

_ALL = (
    # What this package trained on freely licensed photos; the card beside the file says how.
    PublicWeights(
        "4x-GramGAN-Lite",
        "4x-GramGAN-Lite.safetensors",
        "",
        "CC-BY-SA-4.0",
        "small RRDBNet trained as Gram-GAN, x4",
        "569b64fe748735aa678224f2d22f9e56d2c5f980568db5b2a5ae2c333922acfc",
        5_146_844,
    ),
    PublicWeights(
        "4x-RRDB-Lite",
        "4x-RRDB-Lite.safetensors",
        "",
        "CC-BY-SA-4.0",
        "small RRDBNet trained with L1, x4",
        "57a751d7d37393aaa99120b76ced651aac86510b0121c07b147755156697f15f",
        5_146_828,
    ),
    # The two of ESRGAN's authors, with BasicSR's key names. BasicSR's own script gets the second from Google Drive.
    PublicWeights(
        "ESRGAN_x4",
        "ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
        f"{_REAL_ESRGAN}/v0.1.1/ESRGAN_SRx4_DF2KOST_official-ff704c30.pth",
        "Apache-2.0",
        "ESRGAN's generator, x4, 23 blocks",
        "ff704c30ff560305e48ed1f4db895e525ab6bc81a46fafe80c0094a271c806d9",
        None,
    ),
    PublicWeights(
        "ESRGAN_PSNR_x4",
        "ESRGAN_PSNR_SRx4_DF2K_official-150ff491.pth",
        "https://drive.google.com/uc?export=download&id=1swaV5iBMFfg-DL6ZyiARztbhutDCWXMM",
        "Apache-2.0",
        "ESRGAN's L1 stage, x4, 23 blocks",
        "150ff491",
        None,
    ),
    PublicWeights(
        "RealESRGAN_x4plus",
        "RealESRGAN_x4plus.pth",
        f"{_REAL_ESRGAN}/v0.1.0/RealESRGAN_x4plus.pth",
        "BSD-3-Clause",
        "Real-ESRGAN for photos, x4",
        "4fa0d38905f75ac06eb49a7951b426670021be3018265fd191d2125df9d682f1",
        67_040_989,
    ),
    PublicWeights(
        "RealESRGAN_x4plus_anime_6B",
        "RealESRGAN_x4plus_anime_6B.pth",
        f"{_REAL_ESRGAN}/v0.2.2.4/RealESRGAN_x4plus_anime_6B.pth",
        "BSD-3-Clause",
        "Real-ESRGAN for drawings, x4, 6 blocks",
        "f872d837d3c90ed2e05227bed711af5671a6fd1c9f7d7e91c911a61f155e99da",
        17_938_799,
    ),
    PublicWeights(
        "RealESRGAN_x2plus",
        "RealESRGAN_x2plus.pth",
        f"{_REAL_ESRGAN}/v0.2.1/RealESRGAN_x2plus.pth",
        "BSD-3-Clause",
        "Real-ESRGAN for photos, x2",
        "49fafd45f8fd7aa8d31ab2a22d14d91b536c34494a5cfe31eb5d89c2fa266abb",
        67_061_725,
    ),
    PublicWeights(
        "realesr-general-x4v3",
        "realesr-general-x4v3.pth",
        f"{_REAL_ESRGAN}/v0.2.5.0/realesr-general-x4v3.pth",
        "BSD-3-Clause",
        "small SRVGGNet for photos, x4",
        "8dc7edb9ac80ccdc30c3a5dca6616509367f05fbc184ad95b731f05bece96292",
        4_885_111,
    ),
    PublicWeights(
        "realesr-general-wdn-x4v3",
        "realesr-general-wdn-x4v3.pth",
        f"{_REAL_ESRGAN}/v0.2.5.0/realesr-general-wdn-x4v3.pth",
        "BSD-3-Clause",
        "small SRVGGNet, weaker denoising, x4",
        "1641f8c4464b9f097c9fdda5589273713f67cf59f3d909e0bd688f0cee269dca",
        4_885_111,
    ),
    PublicWeights(
        "realesr-animevideov3",
        "realesr-animevideov3.pth",
        f"{_REAL_ESRGAN}/v0.2.5.0/realesr-animevideov3.pth",
        "BSD-3-Clause",
        "smaller SRVGGNet for animation, x4",
        "b8a8376811077954d82ca3fcf476f1ac3da3e8a68a4f4d71363008000a18b75d",
        2_504_012,
    ),
    PublicWeights(
        "vgg19",
        "vgg19-dcbb9e9d.pth",
        f"{_TORCHVISION}/vgg19-dcbb9e9d.pth",
        "BSD-3-Clause",
        "VGG19 of the perceptual loss",
        "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44",
        574_673_361,
    ),
    PublicWeights(
        "vgg16",
        "vgg16-397923af.pth",
        f"{_TORCHVISION}/vgg16-397923af.pth",
        "BSD-3-Clause",
        "VGG16, a backbone of LPIPS",
        "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
        553_433_881,
    ),
    PublicWeights(
        "alexnet",
        "alexnet-owt-7be5be79.pth",
        f"{_TORCHVISION}/alexnet-owt-7be5be79.pth",
        "BSD-3-Clause",
        "AlexNet, a backbone of LPIPS",
        "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02",
        244_408_911,
    ),
)
WEIGHTS = {weights.name: weights for weights in _ALL}


def public_weights(name: str) -> PublicWeights:
    """Return the checkpoint of a name.

    Raises:
        UserError: for an unknown name.
    """
    if name not in WEIGHTS:
        raise UserError(f"{shown(name)}: no public weights of this name{did_you_mean(name, WEIGHTS, SEE_LIST)}")
    return WEIGHTS[name]
