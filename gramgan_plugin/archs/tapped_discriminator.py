"""The base of discriminators that hand out features from forward."""

from collections.abc import Sequence
from typing import ClassVar, overload

from torch import Tensor, nn

from gramgan_plugin.archs.taps import resolve_taps

SLOPE = 0.2  # of LeakyReLU below 0


class TappedDiscriminator(nn.Module):
    """A discriminator whose convolutions, all but one that gives logits, are taps.

    A subclass lists ``tap_names`` in order, and computes in `run`.
    """

    tap_names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def resolve_taps(cls, taps: Sequence[str | int]) -> tuple[str, ...]:
        """Return the canonical names of taps.

        Args:
            taps: names (``conv2_0``) or numbers of convolutions, counted from 1 (5).

        Returns:
            Names, in the same order.

        Raises:
            ValueError: if this network has no such convolution, or a tap is given twice.
        """
        return resolve_taps(taps, cls.tap_names)

    def run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the logits of images and the features of all taps, after the activation.

        Raises:
            ValueError: for an input of another shape than the network takes.
        """
        raise NotImplementedError

    @overload
    def forward(self, x: Tensor, taps: None = None) -> Tensor: ...

    @overload
    def forward(self, x: Tensor, taps: Sequence[str | int]) -> tuple[Tensor, dict[str, Tensor]]: ...

    def forward(self, x: Tensor, taps: Sequence[str | int] | None = None) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Return the logits of images and, with ``taps``, features.

        Args:
            x: (N, num_in_ch, H, W).
            taps: the features to return, by name or number; None for none.

        Returns:
            Logits; with ``taps``, also a dict from each tap's canonical name to its features (N, C, H, W) after the
            activation, in the order of ``taps``.

        Raises:
            ValueError: for an input of another shape, or an unknown tap.
        """
        wanted = () if taps is None else self.resolve_taps(taps)
        logits, features = self.run(x)
        return logits if taps is None else (logits, {name: features[name] for name in wanted})
