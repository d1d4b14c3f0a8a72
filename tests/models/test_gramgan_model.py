from copy import deepcopy
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch
from basicsr.models.esrgan_model import ESRGANModel

from gramgan_plugin.config import resolve_options
from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.errors import OptionError, UserError
from gramgan_plugin.models import GramGANModel, HostFixes, build_model


def _resolved(options: dict[str, Any]) -> dict[str, Any]:
    return resolve_options(options, is_train=True) | {"rank": 0, "world_size": 1}


def _esrgan_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options that upstream's ESRGANModel and ours both understand, at the size upstream's discriminator takes."""
    options = deepcopy(options)
    options["network_d"] = {"type": "VGGStyleDiscriminator", "num_in_ch": 3, "num_feat": 2}
    options["train"] = {
        "ema_decay": 0.9,
        "optim_g": {"type": "Adam", "lr": 1e-3},
        "optim_d": {"type": "Adam", "lr": 1e-3},
        "scheduler": {"type": "MultiStepLR", "milestones": [50], "gamma": 0.5},
        "total_iter": 4,
        "pixel_opt": {"type": "L1Loss", "loss_weight": 0.01},
        "gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.005},
    }
    return options


def _weights(net: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in net.named_parameters()}


class TestAgainstUpstream:
    def test_esrgan_gives_the_same_weights(self, tiny_options, workdir):
        opt = _resolved(_esrgan_options(tiny_options))
        torch.manual_seed(0)
        ours = GramGANModel(deepcopy(opt))
        torch.manual_seed(0)
        theirs = ESRGANModel(deepcopy(opt))
        theirs.net_g.load_state_dict(ours.net_g.state_dict())
        theirs.net_g_ema.load_state_dict(ours.net_g_ema.state_dict())
        theirs.net_d.load_state_dict(ours.net_d.state_dict())
        generator = torch.Generator().manual_seed(1)
        for iteration in (1, 2):
            gt = torch.rand(2, 3, 128, 128, generator=generator)
            data = {"lq": torch.nn.functional.avg_pool2d(gt, 4), "gt": gt}
            for model in (ours, theirs):
                model.update_learning_rate(iteration)
                model.feed_data(data)
                model.optimize_parameters(iteration)
            log = ours.get_current_log()
            for key, value in theirs.get_current_log().items():
                assert log[key] == pytest.approx(value, rel=2e-3, abs=1e-5), key
        for net in ("net_g", "net_d", "net_g_ema"):
            for name, weight in _weights(getattr(theirs, net)).items():
                # Adam's first steps are of the size of lr, whatever the gradient: compare with that.
                torch.testing.assert_close(_weights(getattr(ours, net))[name], weight, rtol=0, atol=1e-4)


class TestGramGANModel:
    def test_an_iteration_moves_g_d_and_the_average(self, tiny_options, workdir):
        opt = _resolved(tiny_options)
        model = build_model(opt)
        data = TrainingData(opt).batches(0)
        before = {name: _weights(getattr(model, name)) for name in ("net_g", "net_d", "net_g_ema")}
        model.update_learning_rate(1)
        model.feed_data(next(data)[1])
        model.optimize_parameters(1)
        for name, old in before.items():
            new = _weights(getattr(model, name))
            assert any(not torch.equal(old[k], new[k]) for k in old), name
        for key, old in before["net_g_ema"].items():
            expected = 0.9 * old + 0.1 * _weights(model.net_g)[key]
            torch.testing.assert_close(_weights(model.net_g_ema)[key], expected)
        log = model.get_current_log()
        assert all(isinstance(value, float) for value in log.values())
        assert {"l_g_pix", "l_g_gram", "l_g_dp", "l_g_gan", "l_d_real", "l_d_fake", "grad_g_gram"} <= log.keys()

    def test_gradient_norms_on_logging_iterations_only(self, tiny_options, workdir):
        tiny_options["logger"]["print_freq"] = 2
        opt = _resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0)
        for iteration in (1, 2):
            model.feed_data(next(data)[1])
            model.optimize_parameters(iteration)
            assert ("grad_g_pix" in model.log_dict) == (iteration == 2)

    def test_net_d_iters_and_init_iters_are_upstreams(self, tiny_options, workdir):
        tiny_options["train"] |= {"net_d_iters": 2, "net_d_init_iters": 2}
        opt = _resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0)
        trained = []
        for iteration in range(1, 7):
            before, d_before = _weights(model.net_g), _weights(model.net_d)
            model.feed_data(next(data)[1])
            model.optimize_parameters(iteration)
            trained.append(any(not torch.equal(v, before[k]) for k, v in _weights(model.net_g).items()))
            assert any(not torch.equal(v, d_before[k]) for k, v in _weights(model.net_d).items())
        assert trained == [False, False, False, True, False, True]

    def test_without_network_d_it_is_the_l1_stage(self, tiny_options, workdir):
        del tiny_options["network_d"]
        for block in ("disc_perceptual_opt", "gan_opt", "gram_patch_opt", "optim_d"):
            del tiny_options["train"][block]
        model = build_model(_resolved(tiny_options))
        assert len(model.optimizers) == 1
        model.feed_data({"gt": torch.rand(1, 3, 16, 16), "lq": torch.rand(1, 3, 4, 4)})
        model.optimize_parameters(1)
        assert list(model.log_dict) == ["l_g_pix", "grad_g_pix"]

    def test_the_average_of_a_network_with_buffers(self, tiny_options, workdir):
        model = build_model(_resolved(tiny_options))
        model.net_g, model.net_g_ema = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
        model.net_g(torch.rand(4, 2, 3, 3) + 5)
        torch.nn.init.constant_(model.net_g.weight, 3.0)
        model.model_ema(0.75)
        assert torch.equal(model.net_g_ema.running_mean, model.net_g.running_mean)
        assert model.net_g_ema.num_batches_tracked == 1
        torch.testing.assert_close(model.net_g_ema.weight.data, torch.full((2,), 0.75 * 1 + 0.25 * 3))

    def test_in_a_process_group(self, tiny_options, workdir):
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        try:
            opt = _resolved(tiny_options) | {"dist": True}
            model = build_model(opt)
            for net in (model.net_g, model.net_d):
                assert isinstance(net, torch.nn.parallel.DistributedDataParallel)
                assert not net.broadcast_buffers, "D runs twice in a step; its buffers must not be written between"
            model.feed_data(next(TrainingData(opt).batches(0))[1])
            model.optimize_parameters(1)
            assert all(p.grad is not None for net in (model.net_g, model.net_d) for p in net.parameters())
            model.save(0, 1)
        finally:
            torch.distributed.destroy_process_group()
        saved = torch.load("experiments/tiny/models/net_d_1.pth", weights_only=True)["params"]
        assert "conv0_0.weight" in saved, "no module. prefix in files"

    def test_bf16(self, tiny_options, workdir):
        tiny_options["train"]["precision"] = "bf16"
        opt = _resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0)
        model.feed_data(next(data)[1])
        model.optimize_parameters(1)
        assert all(torch.isfinite(value) for value in model.log_dict.values())
        assert all(p.dtype == torch.float32 for p in model.net_g.parameters())

    def test_channels_last_changes_the_layout_only(self, tiny_options, workdir):
        results = []
        for wanted in (False, True):
            tiny_options["train"]["channels_last"] = wanted
            opt = _resolved(tiny_options)
            torch.manual_seed(0)
            model, data = build_model(opt), TrainingData(opt).batches(0)
            for net in (model.net_g, model.net_d, model.net_g_ema):
                weight = next(p for p in net.parameters() if p.dim() == 4 and p.shape[1] > 1)
                assert weight.is_contiguous(memory_format=torch.channels_last) == wanted
            model.feed_data(next(data)[1])
            model.optimize_parameters(1)
            results.append(model.get_current_log())
            model.save(0, 1)
        assert results[1] == pytest.approx(results[0], rel=1e-3, abs=1e-6)
        saved = torch.load("experiments/tiny/models/net_g_1.pth", weights_only=True)["params"]
        assert all(value.is_contiguous() for value in saved.values()), "files are in the usual layout"

    def test_channels_last_with_upstreams_discriminator(self, tiny_options, workdir):
        options = _esrgan_options(tiny_options)
        options["train"]["channels_last"] = True
        model = build_model(_resolved(options))
        gt = torch.rand(2, 3, 128, 128)
        model.feed_data({"lq": torch.nn.functional.avg_pool2d(gt, 4), "gt": gt})
        model.optimize_parameters(1)
        assert model.net_g(model.lq).is_contiguous(memory_format=torch.channels_last)

    def test_starting_from_a_checkpoint_with_ema_on(self, tiny_options, workdir):
        source = build_model(_resolved(tiny_options))
        for wrapped in (source.net_g.state_dict(), {"params": source.net_g.state_dict()}):
            torch.save(wrapped, "start.pth")
            tiny_options["path"]["pretrain_network_g"] = "start.pth"
            model = build_model(_resolved(tiny_options))
            for net in (model.net_g, model.net_g_ema):
                assert all(torch.equal(v, _weights(source.net_g)[k]) for k, v in _weights(net).items())

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda o: o.pop("network_d"), "network_d: missing, but train.gan_opt"),
            (lambda o: o["train"].pop("gan_opt"), "train.gan_opt: missing"),
            (
                lambda o: o["train"]["disc_perceptual_opt"].update(taps=[5, 11]),
                r"train\.disc_perceptual_opt\.taps: .*conv.* 11",
            ),
            (lambda o: o["train"].update(precision="fp8"), "train.precision: 'fp8'"),
            (lambda o: o["train"]["optim_g"].pop("lr"), "train.optim_g: needs `type` and `lr`"),
            (lambda o: o["train"]["gram_patch_opt"].update(select_by="colour"), "train.gram_patch_opt: .*select_by"),
            (
                lambda o: o["network_d"].update(type="VGGStyleDiscriminator", input_size=128),
                "does not give its features",
            ),
            (
                lambda o: [
                    o["train"].pop(k) for k in ("pixel_opt", "gram_patch_opt", "disc_perceptual_opt", "gan_opt")
                ],
                "train: no loss is on",
            ),
        ],
    )
    def test_exception(self, tiny_options, workdir, change, message):
        change(tiny_options)
        with pytest.raises(OptionError, match=message):
            build_model(_resolved(tiny_options))


class TestBuildModel:
    def test_upstreams_perceptual_loss_without_weights_or_network(self, tiny_options, workdir, monkeypatch):
        options = _esrgan_options(tiny_options) | {"model_type": "ESRGANModel"}
        options["train"]["perceptual_opt"] = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1}}
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(workdir))
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        with pytest.raises(UserError, match=r"^[^\n]*put it at experiments/pretrained_models/vgg19-dcbb9e9d\.pth$"):
            build_model(_resolved(options))

    def test_any_registered_class_gets_the_fixes(self, tiny_options, workdir):
        options = _esrgan_options(tiny_options) | {"model_type": "ESRGANModel"}
        torch.save(torch.nn.Linear(1, 1).state_dict(), "other.pth")
        model = build_model(_resolved(options))
        assert isinstance(model, HostFixes)
        assert isinstance(model, ESRGANModel)
        assert type(model).__name__ == "ESRGANModel"
        options["path"]["pretrain_network_g"] = "other.pth"
        with pytest.raises(UserError, match="is it a checkpoint of this network"):
            build_model(_resolved(options))
