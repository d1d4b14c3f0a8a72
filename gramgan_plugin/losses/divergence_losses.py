"""The two divergence losses of SuRGe."""

from torch import Tensor, nn

from gramgan_plugin.functional.divergences import gromov_wasserstein, jensen_shannon


class JensenShannonLoss(nn.Module):
    """Jensen-Shannon divergence between SR and GT (SuRGe, arXiv 2404.06294).

    Each image is a distribution of its values. The loss is between 0 and log 2, and blind to a factor that all values
    of an image have in common: see `functional.divergences.jensen_shannon`.

    Args:
        loss_weight: multiplies the result.

    Example:
        >>> import torch
        >>> float(JensenShannonLoss()(torch.full((1, 3, 4, 4), 0.5), torch.full((1, 3, 4, 4), 0.5)))
        0.0
    """

    form = "image"

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, sr: Tensor, gt: Tensor) -> Tensor:
        """Return the weighted loss, a scalar in at least float32.

        Args:
            sr: (N, C, H, W) in [0, 1]; negative values count as 0.
            gt: of the same shape and range; no gradient flows into it.

        Raises:
            ValueError: if the shapes differ.
        """
        return self.loss_weight * jensen_shannon(sr, gt)


class GromovWassersteinLoss(nn.Module):
    """Gromov-Wasserstein distance between the batches of LQ and SR (SuRGe, arXiv 2404.06294).

    SR's images shall differ from one another as LQ's do: see `functional.divergences.gromov_wasserstein`. It needs a
    batch of at least 4 images, of each process and each part of an accumulated batch.

    Args:
        loss_weight: multiplies the result.

    Example:
        >>> import torch
        >>> lq = torch.rand(4, 3, 2, 2, generator=torch.Generator().manual_seed(0))
        >>> sr = torch.nn.functional.interpolate(lq, scale_factor=4)
        >>> round(float(GromovWassersteinLoss()(sr, sr, lq)), 6)
        0.0
    """

    form = "image_lq"

    def __init__(self, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.loss_weight = loss_weight

    def forward(self, sr: Tensor, gt: Tensor, lq: Tensor) -> Tensor:
        """Return the weighted loss, a scalar in at least float32.

        Args:
            sr: (N, C, H, W), N at least 4.
            gt: is not used.
            lq: (N, C, h, w); no gradient flows into it.

        Raises:
            ValueError: for batches of different sizes, or of less than 4.
        """
        return self.loss_weight * gromov_wasserstein(lq, sr)
