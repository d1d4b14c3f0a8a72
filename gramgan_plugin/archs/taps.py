"""Resolve taps: convolutions of a discriminator by name or by number."""

from collections.abc import Sequence


def resolve_taps(taps: Sequence[str | int], names: Sequence[str], where: str = "") -> tuple[str, ...]:
    """Return the canonical names of taps.

    Args:
        taps: names (``conv2_0``) or numbers of convolutions, counted from 1 (5).
        names: all convolutions of the network, in order.
        where: about the network, for the message, such as ``at input size 128``.

    Returns:
        Names, in the order of ``taps``.

    Raises:
        ValueError: if there is no such convolution, or a tap is given twice.

    Example:
        >>> resolve_taps([2, "conv0_0"], ("conv0_0", "conv0_1"))
        ('conv0_1', 'conv0_0')
    """
    if isinstance(taps, str):
        raise ValueError(f"taps: expected a list of names or numbers, got {taps!r}")
    resolved = []
    for tap in taps:
        if isinstance(tap, int) and not isinstance(tap, bool) and 1 <= tap <= len(names):
            resolved.append(names[tap - 1])
        elif isinstance(tap, str) and tap in names:
            resolved.append(tap)
        else:
            place = f" {where}" if where else ""
            raise ValueError(
                f"taps: there is no convolution {tap!r}{place}, only 1 to {len(names)}: {', '.join(names)}"
            )
    if len(set(resolved)) < len(resolved):
        raise ValueError(f"taps: {', '.join(resolved)} names a convolution twice")
    return tuple(resolved)
