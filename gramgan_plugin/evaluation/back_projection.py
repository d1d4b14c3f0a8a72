"""LR-PSNR: whether a super-resolved image, reduced again, is the LQ image from which it was made."""

from torch import Tensor

from gramgan_plugin.evaluation.metric_inputs import check_images, without_border
from gramgan_plugin.functional.matlab_bicubic import lq_levels


def lr_psnr(sr: Tensor, lq: Tensor, crop: int = 0) -> Tensor:
    """Return the PSNR in dB between LQ and the reduced SR.

    Protocol: SR, as saved in 8 bits, is reduced by MATLAB's antialiased bicubic ``imresize`` (computed in floating
    point) to the size of LQ and rounded to 8 bits, as LQ was. The mean squared error is that over all pixels and the
    three channels of RGB, and the peak is 255. The scale is that of the two sizes. The border is cut off after the
    reduction.

    Args:
        sr: (N, 3, scale * H, scale * W) uint8 RGB.
        lq: (N, 3, H, W) uint8 RGB.
        crop: pixels of SR left out at each border: crop / scale, rounded up, of LQ.

    Returns:
        (N,) float64; infinite if the images are equal; higher is better.

    Raises:
        ValueError: for other tensors, sizes that are not a whole multiple, or too small images.

    Example:
        >>> import torch
        >>> lr_psnr(torch.full((1, 3, 8, 8), 7, dtype=torch.uint8), torch.full((1, 3, 2, 2), 7, dtype=torch.uint8))
        tensor([inf], dtype=torch.float64)
    """
    check_images("sr", sr)
    check_images("lq", lq)
    if sr.device != lq.device:
        raise ValueError(f"sr and lq: expected one device, got {sr.device} and {lq.device}")
    scale = sr.shape[-1] // lq.shape[-1]
    if scale < 1 or sr.shape != (*lq.shape[:2], scale * lq.shape[2], scale * lq.shape[3]):
        raise ValueError(f"sr: expected a whole multiple of lq's size, got {tuple(sr.shape)} for {tuple(lq.shape)}")
    border = -(-crop // scale)
    reduced = without_border(lq_levels(sr, scale), border)
    error = (reduced.double() - without_border(lq, border).double()).square().flatten(1).mean(dim=1)
    return 10 * (255**2 / error).log10()
