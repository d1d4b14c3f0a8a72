"""LDL's loss: L1 on the pixels that look like artifacts."""

from torch import Tensor, nn

from gramgan_plugin.functional.artifacts import artifact_map
from gramgan_plugin.utils.precision import at_least_float32


class ArtifactMapLoss(nn.Module):
    """mean ``|M (SR - GT)|`` with LDL's map M of artifacts (Liang, Zeng and Zhang, CVPR 2022).

    It needs the averaged weights (``train.ema_decay``), whose SR tells artifacts from detail. The map is a constant (a
    decision of this project: it selects pixels).

    Args:
        loss_weight: multiplies the result.
        window: side of the window in which the residual's variance is measured, odd.

    Raises:
        ValueError: if ``window`` is not odd.
    """

    form = "image_average"

    def __init__(self, loss_weight: float = 1.0, window: int = 7) -> None:
        super().__init__()
        if window < 3 or window % 2 == 0:
            raise ValueError(f"window: expected an odd number from 3 on, got {window}")
        self.loss_weight = loss_weight
        self.window = window

    def forward(self, sr: Tensor, gt: Tensor, sr_average: Tensor) -> Tensor:
        """Return the weighted loss.

        Args:
            sr: (N, C, H, W) in [0, 1].
            gt: the same of GT.
            sr_average: the same of the averaged network; no gradient flows into it.

        Returns:
            A scalar in at least float32.
        """
        sr, gt = at_least_float32(sr, gt)
        return self.loss_weight * (artifact_map(sr, gt, sr_average, self.window) * (sr - gt)).abs().mean()
