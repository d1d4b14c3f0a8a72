import pytest
import torch
from basicsr.archs.rrdbnet_arch import RRDBNet
from basicsr.archs.swinir_arch import SwinIR
from basicsr.models.swinir_model import SwinIRModel

from gramgan_plugin.config import resolve_options
from gramgan_plugin.functional.padding import pad_to_multiple, side_multiple
from gramgan_plugin.models.gramgan_model import GramGANModel

SWINIR = {
    "type": "SwinIR",
    "upscale": 4,
    "img_size": 16,
    "window_size": 8,
    "depths": [2],
    "embed_dim": 12,
    "num_heads": [2],
    "mlp_ratio": 2,
    "upsampler": "pixelshuffledirect",
    "resi_connection": "1conv",
    "img_range": 1.0,
}


class TestSideMultiple:
    def test_declared(self):
        options = {key: value for key, value in SWINIR.items() if key != "type"}
        assert side_multiple(SwinIR(**options)) == 8
        multiples = {scale: side_multiple(RRDBNet(3, 3, scale=scale, num_feat=4, num_block=1)) for scale in (1, 2, 4)}
        assert multiples == {1: 4, 2: 2, 4: 1}


class TestPadToMultiple:
    @pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 9), (3, 20), (1, 1)])
    def test_the_image_stays(self, height, width):
        image = torch.rand(1, 3, height, width)
        padded = pad_to_multiple(image, 8)
        assert padded.shape[-2] % 8 == padded.shape[-1] % 8 == 0
        assert padded.shape[-2] - height < 8
        assert torch.equal(padded[..., :height, :width], image)

    @pytest.mark.parametrize(("height", "width"), [(16, 16), (13, 9), (3, 20), (1, 1), (2, 5)])
    def test_as_spandrel_pads(self, height, width):
        size_req = pytest.importorskip("spandrel.__helpers.size_req")
        image = torch.rand(1, 3, height, width)
        needs = size_req.SizeRequirements(multiple_of=8, minimum=24)
        _, padded = size_req.pad_tensor(image, needs)
        assert torch.equal(pad_to_multiple(image, 8, least=24), padded)


class TestModels:
    def _model(self, tiny_options, cls, network):
        tiny_options["network_g"] = dict(network)
        tiny_options["path"] = {}
        opt = resolve_options(tiny_options, is_train=False) | {"rank": 0, "world_size": 1}
        torch.manual_seed(0)
        return cls(opt)

    @pytest.mark.parametrize(("height", "width"), [(24, 24), (25, 31), (5, 11)])
    def test_swinir_gives_what_upstreams_model_of_its_own_gives(self, tiny_options, height, width):
        lq = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
        results = []
        # Upstream cannot take what is too small to be reflected.
        for cls in (GramGANModel, SwinIRModel) if height >= 8 else (GramGANModel,):
            model = self._model(tiny_options, cls, SWINIR)
            model.feed_data({"lq": lq})
            model.test()
            results.append(model.get_current_visuals()["result"])
        assert results[0].shape == (1, 3, 4 * height, 4 * width)
        assert torch.equal(model.lq, lq)
        assert all(torch.equal(result, results[0]) for result in results)

    @pytest.mark.parametrize("scale", [1, 2])
    def test_pixel_unshuffle(self, tiny_options, scale):
        tiny_options["scale"] = scale
        network = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "scale": scale}
        model = self._model(tiny_options, GramGANModel, network)
        model.feed_data({"lq": torch.rand(1, 3, 13, 7)})
        model.test()
        assert model.output.shape == (1, 3, 13 * scale, 7 * scale)
