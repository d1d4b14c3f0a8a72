"""Upscaling: against the network's own call, in tiles of any size, of every type of image."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gramgan_plugin.checkpoints.networks import Network
from gramgan_plugin.errors import UserError
from gramgan_plugin.inference import engines
from gramgan_plugin.inference.engines import Engine, build_engine
from gramgan_plugin.inference.upscaler import Upscaler
from tests.inference.conftest import rrdb_network, srvgg_network


def expected(network, image):
    """The network's call on the whole image, rounded to the image's type."""
    most = np.iinfo(image.dtype).max
    lq = torch.from_numpy(image.astype(np.float32) / most).permute(2, 0, 1)[None]
    sr = network.net(lq)[0].permute(1, 2, 0).clamp(0, 1).numpy()
    return np.rint(sr.astype(np.float64) * most)


def near(result, reference, within=1):
    assert result.shape == reference.shape
    return np.abs(result.astype(np.int64) - reference.astype(np.int64)).max() <= within


class TestWhole:
    @pytest.mark.parametrize("scale", [4, 2, 1])
    def test_the_networks_own_call(self, photo, scale):
        network = rrdb_network(scale)
        result = Upscaler(network, engine="torch", precision="fp32", device="cpu")(photo)
        assert result.dtype == np.uint8
        reference = expected(network, photo)
        assert near(result, reference)
        assert (result != reference).mean() < 0.01, "rounded, not cut off"

    def test_sixteen_bits(self, network, photo):
        deep = photo.astype(np.uint16) * 257
        result = Upscaler(network, engine="torch", precision="fp32")(deep)
        assert result.dtype == np.uint16
        assert near(result, expected(network, deep), within=3)
        assert len(np.unique(result)) > 256

    def test_gray(self, network, photo):
        gray = photo[..., :1]
        upscaler = Upscaler(network, engine="torch", precision="fp32")
        result = upscaler(gray)
        assert near(result, expected(network, gray.repeat(3, axis=2)).mean(axis=2, keepdims=True))
        assert np.array_equal(upscaler(gray[..., 0]), result[..., 0])

    def test_colours_by_a_network_of_gray(self, photo):
        network = rrdb_network(channels=1)
        result = Upscaler(network, engine="torch", precision="fp32")(photo)
        channels = [expected(network, photo[..., channel : channel + 1]) for channel in range(3)]
        assert near(result, np.concatenate(channels, axis=2))

    def test_sides_that_do_not_fit_pixel_unshuffle(self, photo):
        network = rrdb_network(1)
        result = Upscaler(network, engine="torch", precision="fp32")(photo[:61, :43])
        assert result.shape == (61, 43, 3)
        assert near(result[:32, :20], expected(network, photo[:64, :44])[:32, :20])


class TestTiles:
    @settings(max_examples=25, deadline=None)
    @given(size=st.tuples(st.integers(1, 130), st.integers(1, 130)), tile=st.integers(32, 90), scale=st.integers(0, 2))
    def test_any_size_and_tile(self, size, tile, scale):
        (height, width), scale = size, 2**scale
        network = rrdb_network(scale) if scale < 4 else srvgg_network(4)
        image = np.random.default_rng(height * 997 + width).integers(0, 256, (height, width, 3), np.uint8)
        whole, tiled = (Upscaler(network, tile=t, engine="torch", precision="fp32")(image) for t in (0, tile))
        assert whole.shape == (height * scale, width * scale, 3)
        assert near(tiled, whole)

    def test_deep_networks(self, photo):
        """The overlap is smaller than what 6 blocks depend on, and enough."""
        network = rrdb_network(blocks=6)
        upscaler = Upscaler(network, tile=96, engine="torch", precision="fp32")
        assert upscaler.overlap == 32
        image = np.tile(photo, (2, 2, 1))
        assert near(upscaler(image), expected(network, image))

    def test_the_smallest_tiles_end(self, network, photo):
        """The side of a tile is without its overlap, which may be as large."""
        upscaler = Upscaler(network, tile=32, engine="torch", precision="fp32")
        sizes = []
        run = build_engine(network, torch.device("cpu"), "torch", "fp32").run
        upscaler.engine = Engine("torch", "fp32", lambda lq: sizes.append(lq.shape) or run(lq))
        assert near(upscaler(photo), expected(network, photo))
        assert len(sizes) <= 3 * 4

    def test_memory_is_short(self, network, photo, caplog):
        """Tiles are halved until they fit."""
        upscaler = Upscaler(network, tile=0, engine="torch", precision="fp32")
        whole = upscaler(photo)
        run, sizes = upscaler.engine.run, []

        def small(lq):
            sizes.append(lq.shape[-1])
            if lq.shape[-1] > 130:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return run(lq)

        object.__setattr__(upscaler.engine, "run", small)
        upscaler.overlap = 20
        assert near(upscaler(np.tile(photo, (1, 2, 1)))[:, :400], whole[:, :400])
        assert sizes[0] == 240
        assert max(sizes[1:]) <= 130
        assert "not enough memory for tiles of 240 pixels" in caplog.text

    def test_memory_for_nothing(self, network, photo):
        upscaler = Upscaler(network, engine="torch", precision="fp32")
        upscaler(photo[:8, :8])

        def none(lq):
            raise MemoryError

        object.__setattr__(upscaler.engine, "run", none)
        with pytest.raises(UserError, match="not enough memory for the smallest tile"):
            upscaler(photo)

    def test_other_errors_are_not_hidden(self, network, photo):
        upscaler = Upscaler(network, engine="torch", precision="fp32")
        upscaler(photo[:8, :8])

        def broken(lq):
            raise RuntimeError("a bug")

        object.__setattr__(upscaler.engine, "run", broken)
        with pytest.raises(RuntimeError, match="a bug"):
            upscaler(photo)


class TestScale:
    @pytest.mark.parametrize(("scale", "size"), [(4, (384, 480)), (3, (288, 360)), (2.5, (240, 300)), (0.5, (48, 60))])
    def test_size(self, network, photo, scale, size):
        result = Upscaler(network, scale=scale, engine="torch", precision="fp32")(photo)
        assert result.shape[:2] == size
        whole = Image.fromarray(expected(network, photo).astype(np.uint8))
        reduced = np.asarray(whole.resize(size[::-1], Image.Resampling.LANCZOS))
        assert near(result, reduced, within=2)

    def test_twice(self, photo):
        network = srvgg_network(2)
        once = Upscaler(network, engine="torch", precision="fp32")
        twice = Upscaler(network, scale=4, engine="torch", precision="fp32")(photo)
        assert np.array_equal(twice, once(once(photo)))

    def test_flips_and_turns(self, network, photo):
        upscaler = Upscaler(network, tta=True, engine="torch", precision="fp32")
        results = []
        for turns in range(4):
            for flip in (False, True):
                view = np.rot90(photo[:, ::-1] if flip else photo, turns)
                sr = np.rot90(expected(network, np.ascontiguousarray(view)), -turns)
                results.append(sr[:, ::-1] if flip else sr)
        assert near(upscaler(photo), np.mean(results, axis=0))

    @pytest.mark.parametrize("size", [(61, 43), (105, 60)])
    def test_flips_of_sides_that_do_not_fit(self, photo, size):
        """Tiled as whole: the image is padded before it is flipped."""
        image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
        network = rrdb_network(1)
        whole, tiled = (Upscaler(network, tile=t, tta=True, engine="torch", precision="fp32")(image) for t in (0, 36))
        assert near(tiled, whole)

    def test_once_and_enlarged(self, photo):
        """Below 1.5 times its scale a network runs once: twice would take the square of the memory."""
        network = srvgg_network(4)
        large = Upscaler(network, scale=5, engine="torch", precision="fp32")(photo)
        once = Image.fromarray(Upscaler(network, engine="torch", precision="fp32")(photo))
        expected_large = np.asarray(once.resize((600, 480), Image.Resampling.LANCZOS)).astype(int)
        assert np.abs(large - expected_large).mean() < 0.5  # Pillow rounds between its two passes


class TestSeveral:
    def test_pillows_images(self, network, photo):
        upscaler = Upscaler(network, engine="torch", precision="fp32")
        assert np.array_equal(upscaler(Image.fromarray(photo)), upscaler(photo))

    def test_tensors_of_other_channels(self, network):
        for shape in ((1, 1, 4, 4), (3, 4, 4)):
            with pytest.raises(ValueError, match=r"lq: expected floats \(N, 3, H, W\) in \[0, 1\], got \("):
                Upscaler(network).upscale_tensor(torch.zeros(shape))
        with pytest.raises(ValueError, match=r"got .* torch\.uint8"):
            Upscaler(network).upscale_tensor(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))

    def test_in_their_order(self, network, photo):
        images = [photo, photo[:20], photo[::-1], photo[..., 0]]
        upscaler = Upscaler(network, engine="torch", precision="fp32")
        for result, image in zip(upscaler.upscale(images), images, strict=True):
            assert np.array_equal(result, upscaler(image))

    def test_tensors(self, network):
        lq = torch.rand(2, 3, 40, 90)
        upscaler = Upscaler(network, tile=32, engine="torch", precision="fp32")
        upscaler.overlap = 20
        assert torch.allclose(upscaler.upscale_tensor(lq), network.net(lq), atol=1e-5)


class TestException:
    @pytest.mark.parametrize(
        ("shape", "kind"), [((4, 4, 3), float), ((4, 4, 2), np.uint8), ((0, 4, 3), np.uint8), ((4,), np.uint8)]
    )
    def test_images(self, network, shape, kind):
        with pytest.raises(ValueError, match="image: expected"):
            Upscaler(network)(np.zeros(shape, kind))

    @pytest.mark.parametrize(
        "options",
        [{"scale": 0}, {"scale": 100}, {"tile": 5}, {"tile": "large"}, {"engine": "x"}, {"precision": "int8"}],
    )
    def test_options(self, network, options):
        with pytest.raises(UserError, match=f"^{next(iter(options))}: expected"):
            Upscaler(network, **options)

    @pytest.mark.parametrize("channels", [(3, 1), (12, 12), (1, 3)])
    def test_channels(self, network, channels):
        with pytest.raises(UserError, match=rf"makes {channels[1]} channels of {channels[0]}"):
            Upscaler(Network(network.net, "X", 4, *channels))

    def test_device(self, network):
        with pytest.raises(UserError, match="device 'meta' cannot be used here"):
            Upscaler(network, device="meta")
        with pytest.raises(UserError, match="device 'gpu9' cannot be used here"):
            Upscaler(network, device="gpu9")

    def test_results_that_are_not_finite(self, photo):
        net = torch.nn.Upsample(scale_factor=2)
        net.forward = lambda x: torch.full((1, 3, 2 * x.shape[2], 2 * x.shape[3]), torch.nan)
        with pytest.raises(UserError, match=r"X fails on 120x96 pixels with torch fp32: its result is not finite$"):
            Upscaler(Network(net, "X", 2, 3, 3), engine="torch", precision="fp32")(photo)

    def test_a_lower_precision_that_is_not_finite(self, photo, monkeypatch, caplog):
        """Where the precision was not asked for, the image is upscaled in float32."""
        net = torch.nn.Upsample(scale_factor=2)

        class Overflows(torch.nn.Module):
            def forward(self, x):
                return net(x) if x.dtype == torch.float32 else net(x) * torch.inf

        network = Network(Overflows(), "X", 2, 3, 3)
        monkeypatch.setattr(engines, "candidates", lambda *_: [("torch", "fp16")])
        result = Upscaler(network)(photo)
        assert np.array_equal(result, photo.repeat(2, axis=0).repeat(2, axis=1))
        assert "X fails on 120x96 pixels with torch fp16: its result is not finite" in caplog.text
        with pytest.raises(UserError, match="is not finite; use --precision fp32"):
            Upscaler(network, precision="fp16")(photo)
