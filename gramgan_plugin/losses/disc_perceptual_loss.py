"""The discriminator perceptual loss of Gram-GAN."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from gramgan_plugin.utils.precision import at_least_float32


class DiscPerceptualLoss(nn.Module):
    r"""Discriminator perceptual loss L_DP (Song et al., Gram-GAN, Sensors 2023, 23(4), 2098).

    .. math::
        L_{DP} = \sum_t \mathrm{mean} (D_t(SR) - D_t(GT))^2

    over the taps t: features of the current discriminator after the activation. The paper takes the 5th and the 11th
    convolution.

    Args:
        loss_weight: multiplies the result.
        taps: the convolutions whose features are compared, by name or by number counted from 1.
        criterion: ``mse`` (the paper's) or ``l1``.
        bn: whether the discriminator's BatchNorm uses the statistics of the batch (``batch``, a decision of
            this project, as in ESRGAN's discriminator passes) or the running ones (``running``). Batch
            statistics hide most of a difference in brightness and contrast. The training step applies it.

    Example:
        >>> import torch
        >>> loss = DiscPerceptualLoss(taps=("conv2_0",))
        >>> float(loss({"conv2_0": torch.zeros(1, 2, 4, 4)}, {"conv2_0": torch.full((1, 2, 4, 4), 0.5)}))
        0.25
    """

    form = "features"

    def __init__(
        self,
        loss_weight: float = 1.0,
        taps: Sequence[str | int] = ("conv2_0", "conv5_0"),
        criterion: str = "mse",
        bn: str = "batch",
    ) -> None:
        super().__init__()
        if isinstance(taps, str) or not taps:
            raise ValueError(f"taps: expected a list of names or numbers, got {taps!r}")
        if criterion not in ("mse", "l1"):
            raise ValueError(f"criterion: expected one of mse, l1, got {criterion!r}")
        if bn not in ("batch", "running"):
            raise ValueError(f"bn: expected one of batch, running, got {bn!r}")
        self.loss_weight = loss_weight
        self.taps = tuple(taps)
        self.criterion = criterion
        self.bn = bn

    def forward(self, feats_sr: Mapping[str, Tensor], feats_gt: Mapping[str, Tensor]) -> Tensor:
        """Return the weighted loss.

        Args:
            feats_sr: for each tap, features of SR, (N, C, H, W).
            feats_gt: for the same taps, features of GT, (N, C, H, W); no gradient flows into them.

        Returns:
            A scalar in at least float32.

        Raises:
            ValueError: if features are missing, or taps or shapes differ.
        """
        if not feats_sr or feats_sr.keys() != feats_gt.keys():
            raise ValueError(
                f"features of SR and GT must be of the same taps, at least one, "
                f"got {sorted(feats_sr)} and {sorted(feats_gt)}"
            )
        terms = [self._difference(tap, feats_sr[tap], feats_gt[tap]) for tap in feats_sr]
        return self.loss_weight * sum(terms[1:], start=terms[0])

    def _difference(self, tap: str, sr: Tensor, gt: Tensor) -> Tensor:
        if sr.shape != gt.shape:
            raise ValueError(f"{tap}: features of SR are {tuple(sr.shape)}, those of GT {tuple(gt.shape)}")
        sr, gt = at_least_float32(sr, gt.detach())
        return (sr - gt).square().mean() if self.criterion == "mse" else (sr - gt).abs().mean()
