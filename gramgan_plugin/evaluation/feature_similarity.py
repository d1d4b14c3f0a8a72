"""GMSD and FSIM: similarity of gradients, and of gradients and phase congruency.

Both compute in float64, with the constants and the treatment of borders of the package piq, to which they are equal.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from gramgan_plugin.evaluation.metric_inputs import cropped_pair
from gramgan_plugin.utils.precision import full_float32

# Rows: Y, I, Q of the NTSC.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
GMS_CONSTANT = 170.0  # for levels in [0, 255]
PC_CONSTANT, GRADIENT_CONSTANT, CHROMA_CONSTANT, CHROMA_WEIGHT = 0.85, 160.0, 200.0, 0.03
SCALES, ORIENTATIONS = 4, 4
SHORTEST_WAVE = 6  # pixels; that of each further scale is twice as long
BANDWIDTH = 0.55  # standard deviation of a log-Gabor filter by its centre frequency
ANGLE_SIGMA = math.pi / ORIENTATIONS / 1.2
CUTOFF, SHARPNESS = 0.45, 15  # of the low-pass filter: in cycles per pixel, and its order
NOISE_DEVIATIONS, NOISE_EXCESS = 2.0, 1.7
FSIM_SIDE = 256  # pixels to which the shorter side is reduced, about
FSIM_LEAST_SIDE = 8


def gmsd(sr: Tensor, gt: Tensor, crop: int = 0) -> Tensor:
    """Return the gradient magnitude similarity deviation (Xue et al., IEEE TIP 2014).

    Luma (Y of YIQ) is averaged over 2x2 pixels. With the Prewitt gradient magnitudes a and b of the two images, the
    similarity at a pixel is (2ab + 170) / (a² + b² + 170), for levels in [0, 255]. The result is its standard deviation
    over the image.

    Args:
        sr: (N, 3, H, W) uint8 RGB.
        gt: the same shape.
        crop: pixels left out at each border.

    Returns:
        (N,) float64; 0 for equal images, lower is better.

    Raises:
        ValueError: for other tensors or too small images.

    Example:
        >>> gray = torch.full((1, 3, 16, 16), 128, dtype=torch.uint8)
        >>> gmsd(gray, gray).tolist()
        [0.0]
    """
    sr, gt = cropped_pair(sr, gt, crop, 2)
    prewitt = torch.tensor([1.0, 1.0, 1.0], dtype=torch.float64) / 3
    a, b = (_gradient_magnitude(_halved(_yiq(image)[:, :1]), prewitt) for image in (sr, gt))
    return _similarity(a, b, GMS_CONSTANT).flatten(1).std(dim=1, correction=0)


def fsim(sr: Tensor, gt: Tensor, crop: int = 0, color: bool = False) -> Tensor:
    """Return the feature similarity FSIM, or FSIMc (Zhang et al., IEEE TIP 2011).

    Images are averaged over F x F pixels, with F the shorter side / 256, rounded. The similarities of phase congruency,
    of Scharr gradient magnitude, and for FSIMc of the I and Q of YIQ, are multiplied, and averaged with the larger
    phase congruency of the two images as the weight.

    Args:
        sr: (N, 3, H, W) uint8 RGB.
        gt: the same shape.
        crop: pixels left out at each border.
        color: FSIMc, which compares colours, too.

    Returns:
        (N,) float64 in [0, 1]; 1 for equal images, higher is better.

    Raises:
        ValueError: for other tensors or too small images.
    """
    sr, gt = cropped_pair(sr, gt, crop, FSIM_LEAST_SIDE)
    factor = max(1, round(min(sr.shape[-2:]) / FSIM_SIDE))
    a, b = (F.avg_pool2d(_yiq(image), factor) for image in (sr, gt))
    scharr = torch.tensor([3.0, 10.0, 3.0], dtype=torch.float64) / 16
    congruency_a, congruency_b = phase_congruency(a[:, 0]), phase_congruency(b[:, 0])
    similarity = _similarity(congruency_a, congruency_b, PC_CONSTANT)
    gradient_a, gradient_b = (_gradient_magnitude(image[:, :1], scharr)[:, 0] for image in (a, b))
    similarity = similarity * _similarity(gradient_a, gradient_b, GRADIENT_CONSTANT)
    if color:
        chroma = _similarity(a[:, 1:], b[:, 1:], CHROMA_CONSTANT).prod(dim=1)
        similarity = similarity * chroma.abs() ** CHROMA_WEIGHT
    weight = torch.maximum(congruency_a, congruency_b)
    return (similarity * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))


def phase_congruency(image: Tensor) -> Tensor:
    """Return how much the phases of an image's frequencies agree at each pixel, as FSIM measures it.

    Log-Gabor filters of 4 orientations and 4 scales give complex responses. In each orientation the energy is the sum
    over scales of the part of a response along their mean phase, less the part across it, less what noise would give,
    which is estimated from the median response of the finest scale. The result is the sum of the energies by the sum of
    the responses' magnitudes.

    Args:
        image: (N, H, W) float64 levels.

    Returns:
        (N, H, W) in [0, 1].
    """
    smallest = torch.finfo(image.dtype).eps
    spectrum = torch.fft.fft2(image)[:, None]
    radial, angle = _radial_filters(image)
    energy, magnitude = torch.zeros_like(image), torch.zeros_like(image)
    for orientation in range(ORIENTATIONS):
        turned = angle - orientation * math.pi / ORIENTATIONS
        away = torch.atan2(turned.sin(), turned.cos())
        filters = radial * (-(away**2) / (2 * ANGLE_SIGMA**2)).exp()  # (S, H, W)
        response = torch.fft.ifft2(spectrum * filters)  # (N, S, H, W)
        total = response.sum(dim=1, keepdim=True)
        relative = response * (total / (total.abs() + smallest)).conj()
        along = (relative.real - relative.imag.abs()).sum(dim=1)
        energy += (along - _noise_energy(response[:, 0], filters)[:, None, None]).clamp_min(0)
        magnitude += response.abs().sum(dim=1)
    return (energy + smallest) / (magnitude + smallest)


def _radial_filters(image: Tensor) -> tuple[Tensor, Tensor]:
    """Return (S, H, W) filters of frequency's absolute value, and its angle (H, W); frequency 0 at [0, 0]."""
    rows, columns = (_frequencies(side, image) for side in image.shape[-2:])
    radius = (rows[:, None].square() + columns.square()).sqrt()
    radius[0, 0] = 1.0  # its logarithm is taken; the filters are 0 there
    low_pass = 1 / (1 + (radius / CUTOFF) ** (2 * SHARPNESS))
    waves = SHORTEST_WAVE * 2 ** torch.arange(SCALES, dtype=image.dtype, device=image.device)
    filters = low_pass * (-((radius * waves[:, None, None]).log() ** 2) / (2 * math.log(BANDWIDTH) ** 2)).exp()
    filters[:, 0, 0] = 0.0
    return filters, torch.atan2(-rows[:, None], columns)


def _frequencies(side: int, like: Tensor) -> Tensor:
    """Return the frequencies of a Fourier transform; the largest of an odd side is 0.5, too, as FSIM has it."""
    centred = torch.arange(side, dtype=like.dtype, device=like.device) - side // 2
    return torch.fft.ifftshift(centred / (side - side % 2))


def _noise_energy(finest: Tensor, filters: Tensor) -> Tensor:
    """Return the energy (N,) up to which a response counts as noise, from the responses of the finest scale (N, H, W).

    For Gaussian noise the squared magnitudes are exponentially distributed: their mean is the median / ln 2.
    """
    pixels = finest.abs().flatten(1).square()
    power = pixels.median(dim=1).values / math.log(2) / filters[0].square().sum()
    kernel = torch.fft.ifft2(filters.sum(dim=0)).real * math.sqrt(filters[0].numel())
    rayleigh = (power * kernel.square().sum()).sqrt()
    mean, deviation = math.sqrt(math.pi / 2), math.sqrt(2 - math.pi / 2)
    return rayleigh * (mean + NOISE_DEVIATIONS * deviation) / NOISE_EXCESS


def _yiq(image: Tensor) -> Tensor:
    matrix = torch.tensor(YIQ, dtype=torch.float64, device=image.device)
    return torch.einsum("ij,njhw->nihw", matrix, image.to(torch.float64))


def _halved(image: Tensor) -> Tensor:
    """Return means over 2x2 pixels; an odd side gets a row or column of zeros."""
    height, width = image.shape[-2:]
    return F.avg_pool2d(F.pad(image, (0, width % 2, 0, height % 2)), 2)


def _gradient_magnitude(image: Tensor, smoothing: Tensor) -> Tensor:
    """Return the magnitude of central differences, smoothed across by 3 weights; zeros lie beyond the border.

    Args:
        image: (N, 1, H, W) float64.
        smoothing: (3,).
    """
    difference = torch.tensor([-1.0, 0.0, 1.0], dtype=image.dtype)
    horizontal = torch.outer(smoothing, difference)
    kernels = torch.stack([horizontal, horizontal.T])[:, None].to(image.device)
    with full_float32():
        return F.conv2d(image, kernels, padding=1).square().sum(dim=1, keepdim=True).sqrt()


def _similarity(a: Tensor, b: Tensor, constant: float) -> Tensor:
    return (2 * a * b + constant) / (a.square() + b.square() + constant)
