"""Run RRDBNet with bounded memory: the trunk at LQ's size, then the head, whose features are large, in strips."""

from collections.abc import Callable

from torch import Tensor, nn

from gramgan_plugin.archs.rrdbnet_arch import RRDBNet

HEAD_RADIUS = 3  # pixels of features on which one of SR depends, see RRDBNet.head
STRIP_VALUES, GPU_STRIP_VALUES = 2**24, 2**26  # of the largest features of a strip

Run = Callable[[Tensor], Tensor]


class Trunk(nn.Module):
    """RRDBNet's trunk as a module of its own."""

    def __init__(self, net: RRDBNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """Return features of LQ, see `RRDBNet.trunk`."""
        return self.net.trunk(x)


class Head(nn.Module):
    """RRDBNet's head as a module of its own."""

    def __init__(self, net: RRDBNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, feat: Tensor) -> Tensor:
        """Return SR of features, see `RRDBNet.head`."""
        return self.net.head(feat)


def in_strips(net: RRDBNet, trunk: Run, head: Run) -> Run:
    """Return a function LQ -> SR that runs the head on strips of rows.

    Args:
        net: the network.
        trunk: its trunk, perhaps compiled.
        head: its head, likewise.
    """
    factor = 2 ** len(net.upsampling)

    def run(x: Tensor) -> Tensor:
        features = trunk(x)
        n, _, height, width = features.shape
        most = STRIP_VALUES if x.device.type == "cpu" else GPU_STRIP_VALUES
        rows = max(4 * HEAD_RADIUS, most // (n * net.num_feat * width * factor**2))
        if rows >= height:
            return head(features)
        result: Tensor | None = None
        for top in range(0, height, rows):
            begin, end = max(0, top - HEAD_RADIUS), min(height, top + rows + HEAD_RADIUS)
            strip = head(features[:, :, begin:end])
            if result is None:
                result = strip.new_empty(n, strip.shape[1], height * factor, width * factor)
            bottom = min(height, top + rows)
            result[:, :, top * factor : bottom * factor] = strip[
                :, :, (top - begin) * factor : (bottom - begin) * factor
            ]
        assert result is not None
        return result

    return run


def reach(net: nn.Module) -> int:
    """Return how far a pixel of LQ can influence SR, in pixels of LQ, or a large number if that is unknown.

    Only layers are counted here, not how little the distant ones contribute.
    """
    if isinstance(net, RRDBNet):
        return net.unshuffle * (15 * net.num_block + 2 + HEAD_RADIUS)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    known = type(net).__name__ in ("SRVGGNetCompact", "MSRResNet", "SRResNetBN", "SuRGeNet")
    return sum(module.kernel_size[0] // 2 for module in convolutions) + 1 if known else 1 << 20


def number_of_values(net: nn.Module) -> int:
    """Return about how many numbers a network holds at its peak for each pixel of LQ."""
    if isinstance(net, RRDBNet):
        return -(-(6 * net.num_feat + 8 * net.num_grow_ch) // net.unshuffle**2)
    convolutions = [module for module in net.modules() if isinstance(module, nn.Conv2d)]
    widest = max((module.out_channels for module in convolutions), default=64)
    at_sr = {"MSRResNet": 4, "SRResNetBN": 4, "SuRGeNet": 16}.get(type(net).__name__, 1)
    return 3 * widest * at_sr
