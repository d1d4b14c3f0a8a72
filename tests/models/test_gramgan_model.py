from copy import deepcopy
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch
from basicsr.models.esrgan_model import ESRGANModel

from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.errors import OptionError, TrainingStopped, UserError
from gramgan_plugin.models.basicsr_fixes import HostFixes
from gramgan_plugin.models.build import build_model
from gramgan_plugin.models.gramgan_model import GramGANModel
from gramgan_plugin.steps.update import Skipped
from tests.models.model_options import esrgan_options, resolved, weights
from tests.vgg_reference import write_weights


class TestAgainstUpstream:
    def test_esrgan_gives_the_same_weights(self, tiny_options, workdir):
        opt = resolved(esrgan_options(tiny_options))
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
            for name, weight in weights(getattr(theirs, net)).items():
                # Adam's first steps are of the size of lr, whatever the gradient: compare with that. Where the gradient
                # is all rounding, the two may step apart.
                difference = (weights(getattr(ours, net))[name] - weight).abs()
                assert float(difference.max()) <= 4e-4, name
                assert float((difference > 1e-4).float().mean()) < 1e-2, name


class TestGramGANModel:
    def test_an_iteration_moves_g_d_and_the_average(self, tiny_options, workdir):
        opt = resolved(tiny_options)
        model = build_model(opt)
        data = TrainingData(opt).batches(0, 0)
        before = {name: weights(getattr(model, name)) for name in ("net_g", "net_d", "net_g_ema")}
        model.update_learning_rate(1)
        model.feed_data(next(data)[-1])
        model.optimize_parameters(1)
        for name, old in before.items():
            new = weights(getattr(model, name))
            assert any(not torch.equal(old[k], new[k]) for k in old), name
        for key, old in before["net_g_ema"].items():
            expected = 0.9 * old + 0.1 * weights(model.net_g)[key]
            torch.testing.assert_close(weights(model.net_g_ema)[key], expected)
        log = model.get_current_log()
        assert all(isinstance(value, float) for value in log.values())
        assert {"l_g_pix", "l_g_gram", "l_g_dp", "l_g_gan", "l_d_real", "l_d_fake", "grad_g_gram"} <= log.keys()
        assert (log["loss_peak"], log["loss_peak_iter"]) == (log["l_g_pix"], 1)

    def test_gradient_norms_on_logging_iterations_only(self, tiny_options, workdir):
        tiny_options["logger"]["print_freq"] = 2
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        for iteration in (1, 2):
            model.feed_data(next(data)[-1])
            model.optimize_parameters(iteration)
            assert ("grad_g_pix" in model.log_dict) == (iteration == 2)

    def test_net_d_iters_and_init_iters_are_upstreams(self, tiny_options, workdir):
        tiny_options["train"] |= {"net_d_iters": 2, "net_d_init_iters": 2}
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        trained = []
        for iteration in range(1, 7):
            before, d_before = weights(model.net_g), weights(model.net_d)
            model.feed_data(next(data)[-1])
            model.optimize_parameters(iteration)
            trained.append(any(not torch.equal(v, before[k]) for k, v in weights(model.net_g).items()))
            assert any(not torch.equal(v, d_before[k]) for k, v in weights(model.net_d).items())
        assert trained == [False, False, False, True, False, True]

    def test_without_network_d_it_is_the_l1_stage(self, tiny_options, workdir):
        del tiny_options["network_d"]
        for block in ("disc_perceptual_opt", "gan_opt", "gram_patch_opt", "optim_d"):
            del tiny_options["train"][block]
        model = build_model(resolved(tiny_options))
        assert len(model.optimizers) == 1
        model.feed_data({"gt": torch.rand(1, 3, 16, 16), "lq": torch.rand(1, 3, 4, 4)})
        model.optimize_parameters(1)
        assert list(model.log_dict) == ["l_g_pix", "grad_g_pix", "sr_contrast", "grad_norm_g"]

    def test_the_average_of_a_network_with_buffers(self, tiny_options, workdir):
        model = build_model(resolved(tiny_options))
        model.net_g, model.net_g_ema = torch.nn.BatchNorm2d(2), torch.nn.BatchNorm2d(2)
        model.net_g(torch.rand(4, 2, 3, 3) + 5)
        torch.nn.init.constant_(model.net_g.weight, 3.0)
        model.model_ema(0.75)
        assert torch.equal(model.net_g_ema.running_mean, model.net_g.running_mean)
        assert model.net_g_ema.num_batches_tracked == 1
        torch.testing.assert_close(model.net_g_ema.weight.data, torch.full((2,), 0.75 * 1 + 0.25 * 3))

    @pytest.mark.parametrize("where", ["generator", "discriminator", "loss"])
    def test_a_step_that_is_not_finite_changes_nothing(self, tiny_options, workdir, where, monkeypatch, caplog):
        """Weights, averages, moments and BatchNorm's statistics are those of a run without that iteration."""
        tiny_options["logger"]["print_freq"] = 100
        opt = resolved(tiny_options)

        def state(model: Any) -> list[torch.Tensor]:
            nets = [v for net in (model.net_g, model.net_d, model.net_g_ema) for v in net.state_dict().values()]
            moments = [v for o in model.optimizers for s in o.state.values() for v in s.values()]
            return [value.clone() for value in nets + moments]

        finals = []
        for breaks in (True, False):
            torch.manual_seed(0)
            model, data = build_model(opt), TrainingData(opt).batches(0, 0)
            batches = [next(data)[-1] for _ in range(3)]
            model.feed_data(batches[0])
            model.optimize_parameters(1)
            if breaks:
                before = state(model)
                model.feed_data(batches[1])
                if where == "generator":
                    hook = model.net_g.register_forward_hook(lambda net, args, sr: sr * float("nan"))
                elif where == "discriminator":
                    hook = model.net_d.conv3_0.register_forward_hook(lambda net, args, x: x * float("inf"))
                else:
                    own, model.terms[1].loss.loss_weight = model.terms[1].loss.loss_weight, float("nan")
                model.optimize_parameters(2)
                if where == "loss":
                    model.terms[1].loss.loss_weight = own
                else:
                    hook.remove()
                assert all(torch.equal(a, b) for a, b in zip(before, state(model), strict=True))
                caplog.clear()
                assert model.get_current_log()["skipped_steps"] == 1
                first = {"generator": "SR", "discriminator": "l_g_dp", "loss": "l_g_gram"}[where]
                assert f"1 step skipped since the last log: from iteration 2, where {first} was" in caplog.text
            model.feed_data(batches[2])
            model.optimize_parameters(3)
            assert "skipped_steps" not in model.get_current_log()
            finals.append(state(model))
        assert all(torch.equal(a, b) for a, b in zip(*finals, strict=True))

    @pytest.mark.parametrize(
        ("precision", "first", "level"),
        [
            ("fp32", "grad_norm_g", "WARNING"),
            ("fp16", "grad_norm_g", "INFO"),
            ("fp16", "l_d_real", "WARNING"),
        ],
    )
    def test_a_skipped_step_is_news_unless_fp16_looks_for_its_scale(
        self, tiny_options, workdir, caplog, monkeypatch, precision, first, level
    ):
        caplog.set_level("INFO")
        tiny_options["train"]["precision"] = precision
        model = build_model(resolved(tiny_options))
        assert model.get_current_log() == {}, "before the first iteration"
        model.log_dict = {"l_g_pix": torch.ones(())}
        monkeypatch.setattr(model.update, "report", lambda: Skipped(2, 2, 1234, first))
        model.get_current_log()
        (record,) = [r for r in caplog.records if r.message.startswith("2 steps skipped")]
        assert record.levelname == level
        assert f"from iteration 1,234, where {first} was" in record.message

    def test_ds_loss_is_among_what_has_to_be_finite(self, tiny_options, workdir, monkeypatch):
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        own = model.adversarial.discriminator
        monkeypatch.setattr(
            model.adversarial, "discriminator", lambda *logits: [half * float("nan") for half in own(*logits)]
        )
        model.feed_data(next(data)[-1])
        model.optimize_parameters(1)
        assert model.update.report().first == "l_d_real"

    def test_the_log_is_the_mean_over_processes(self, tiny_options, workdir, monkeypatch):
        model = build_model(resolved(tiny_options))
        model.opt["dist"] = True
        model.log_dict = {"l_g_pix": torch.tensor(1.0), "l_d_real": torch.tensor(2.0)}
        monkeypatch.setattr(torch.distributed, "all_reduce", lambda values: values.add_(torch.tensor([5.0, 6.0])))
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        assert model.get_current_log() == {"l_g_pix": 3.0, "l_d_real": 4.0}

    def test_what_a_batch_knows(self, tiny_options, workdir, monkeypatch):
        model = build_model(resolved(tiny_options) | {"rank": 1, "world_size": 3, "manual_seed": 11})
        model.feed_data({"gt": torch.rand(2, 3, 64, 64), "lq": torch.rand(2, 3, 16, 16)})
        seen, step = [], model.step
        monkeypatch.setattr(model, "step", lambda batch, iteration: seen.append(batch) or step(batch, iteration))
        model.optimize_parameters(5)
        (batch,) = seen
        assert (batch.iteration, batch.manual_seed, batch.first_index, batch.stride) == (5, 11, 1, 3)

    def test_without_an_average(self, tiny_options, workdir):
        tiny_options["train"]["ema_decay"] = 0
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        model.feed_data(next(data)[-1])
        model.optimize_parameters(1)
        model.save(0, 1)
        assert not hasattr(model, "net_g_ema")
        assert list(torch.load("experiments/tiny/models/net_g_1.pth", weights_only=True)) == ["params"]

    def test_which_weights_are_saved(self, tiny_options, workdir):
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        model.feed_data(next(data)[-1])
        model.optimize_parameters(1)
        model.save(0, 1)
        saved = torch.load("experiments/tiny/models/net_g_1.pth", weights_only=True)
        assert not torch.equal(saved["params"]["conv_first.weight"], saved["params_ema"]["conv_first.weight"])
        for key, net in (("params", model.net_g), ("params_ema", model.net_g_ema)):
            assert all(torch.equal(saved[key][name], value) for name, value in net.state_dict().items())

    def test_d_sees_through_the_mask_with_and_without_g(self, tiny_options, workdir, monkeypatch):
        tiny_options["train"]["net_d_init_iters"] = 1
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        seen = []
        model.net_d.register_forward_pre_hook(lambda net, args: seen.append(args[0].detach().clone()))
        monkeypatch.setattr(model.adversarial, "mask", lambda gt, lq: (gt[:, :1] > gt[:, 1:2]).to(gt.dtype))
        for iteration in (1, 2):
            seen.clear()
            model.feed_data(next(data)[-1])
            model.optimize_parameters(iteration)
            mask = model.gt[:, :1] > model.gt[:, 1:2]
            assert 0 < mask.float().mean() < 1
            assert len(seen) == 2
            for image, whole in zip(seen, (model.gt, model.output), strict=True):
                torch.testing.assert_close(image, whole * mask)
            assert not model.output.requires_grad

    def test_stops_after_too_many(self, tiny_options, workdir):
        tiny_options["train"]["max_nonfinite"] = 3
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        before = weights(model.net_g)
        model.terms[0].loss.loss_weight = float("inf")
        for iteration in (1, 2, 3):
            model.feed_data(next(data)[-1])
            model.optimize_parameters(iteration)
            if iteration == 2:
                assert model.get_current_log()["skipped_steps"] == 2
        with pytest.raises(TrainingStopped, match=r"^train.max_nonfinite: 3 iterations .* l_g_pix"):
            model.get_current_log()
        assert all(torch.equal(before[key], value) for key, value in weights(model.net_g).items())

    def test_stops_after_fifty_if_the_options_do_not_say(self, tiny_options, workdir, monkeypatch):
        """BasicSR's own loop fills in no defaults."""
        opt = resolved(tiny_options)
        opt["train"].pop("max_nonfinite", None)
        model = build_model(opt)
        model.log_dict = {"l_g_pix": torch.ones(())}
        monkeypatch.setattr(model.update, "report", lambda: Skipped(49, 49, 1, "SR"))
        assert model.get_current_log()["skipped_steps"] == 49
        monkeypatch.setattr(model.update, "report", lambda: Skipped(50, 50, 1, "SR"))
        with pytest.raises(TrainingStopped, match="50 iterations in a row"):
            model.get_current_log()

    def test_starting_from_a_checkpoint_with_ema_on(self, tiny_options, workdir):
        source = build_model(resolved(tiny_options))
        for wrapped in (source.net_g.state_dict(), {"params": source.net_g.state_dict()}):
            torch.save(wrapped, "start.pth")
            tiny_options["path"]["pretrain_network_g"] = "start.pth"
            model = build_model(resolved(tiny_options))
            for net in (model.net_g, model.net_g_ema):
                assert all(torch.equal(v, weights(source.net_g)[k]) for k, v in weights(net).items())

    def test_starting_from_weights_and_their_average(self, tiny_options, workdir):
        one, other = (build_model(resolved(tiny_options)).net_g.state_dict() for _ in range(2))
        torch.save({"params": one, "params_ema": other}, "start.pth")
        tiny_options["path"]["pretrain_network_g"] = "start.pth"
        model = build_model(resolved(tiny_options))
        for net, expected in ((model.net_g, one), (model.net_g_ema, other)):
            assert all(torch.equal(value, expected[key]) for key, value in weights(net).items())

    def test_which_weights_d_starts_from(self, tiny_options, workdir):
        one, other = (build_model(resolved(tiny_options)).net_d.state_dict() for _ in range(2))
        torch.save({"params": one, "weights": other}, "d.pth")
        tiny_options["path"]["pretrain_network_d"] = "d.pth"
        for path, expected in (({}, one), ({"param_key_d": "weights"}, other)):
            model = build_model(resolved(tiny_options | {"path": tiny_options["path"] | path}))
            assert all(torch.equal(value, expected[key]) for key, value in weights(model.net_d).items())
        torch.save({key: value for key, value in one.items() if key != "conv0_0.bias"}, "d.pth")
        with pytest.raises(UserError, match=r"conv0_0\.bias"):
            build_model(resolved(tiny_options))  # strict if the options do not say

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda o: o.pop("network_d"), "network_d: missing, but train.disc_perceptual_opt and"),
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
            build_model(resolved(tiny_options))


class TestBuildModel:
    def test_upstreams_perceptual_loss_without_weights_or_network(self, tiny_options, workdir, monkeypatch):
        options = esrgan_options(tiny_options) | {"model_type": "ESRGANModel"}
        options["train"]["perceptual_opt"] = {"type": "PerceptualLoss", "layer_weights": {"conv1_2": 1}}
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(workdir))
        for name in ("HTTPS_PROXY", "https_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        with pytest.raises(UserError, match=r"^[^\n]* experiments/pretrained_models/vgg19-dcbb9e9d\.pth$"):
            build_model(resolved(options))

    def test_any_registered_class_gets_the_fixes(self, tiny_options, workdir):
        options = esrgan_options(tiny_options) | {"model_type": "ESRGANModel"}
        torch.save(torch.nn.Linear(1, 1).state_dict(), "other.pth")
        model = build_model(resolved(options))
        assert isinstance(model, HostFixes)
        assert isinstance(model, ESRGANModel)
        assert type(model).__name__ == "ESRGANModel"
        options["path"]["pretrain_network_g"] = "other.pth"
        with pytest.raises(UserError, match="give a checkpoint of this network"):
            build_model(resolved(options))

    @pytest.mark.parametrize("model", ["ESRGANModel", "GramGANModel"])
    def test_the_options_stay_as_they_are(self, tiny_options, workdir, model):
        """BasicSR's models take `type` out of the blocks they read."""
        opt = resolved(esrgan_options(tiny_options) | {"model_type": model})
        before = deepcopy(opt)
        build_model(opt)
        assert opt == before

    def test_basicsrs_models_get_our_losses_with_their_files_opened(self, tiny_options, workdir):
        options = esrgan_options(tiny_options) | {"model_type": "SRModel"}
        del options["network_d"], options["train"]["gan_opt"], options["train"]["optim_d"]
        write_weights(workdir / "vgg.pth", last="conv1_2")
        options["train"]["pixel_opt"] = {
            "type": "VGGPerceptualLoss",
            "layer_weights": {"conv1_2": 1.0},
            "vgg_weights": "vgg.pth",
        }
        model = build_model(resolved(options))
        model.feed_data({"gt": torch.rand(1, 3, 32, 32), "lq": torch.rand(1, 3, 8, 8)})
        model.optimize_parameters(1)
        assert model.get_current_log()["l_pix"] > 0
        options["train"]["pixel_opt"]["vgg_weights"] = "missing.pth"
        with pytest.raises(UserError, match=r"missing\.pth: cannot be read"):
            build_model(resolved(options))
