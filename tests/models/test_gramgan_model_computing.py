"""How the model computes: precision, memory layout, compilation, parts of a batch, several processes."""

import warnings
from typing import Any

import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.data.loaders import TrainingData
from gramgan_plugin.models.build import build_model
from tests.models.model_options import esrgan_options, resolved, weights


class TestComputing:
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_no_value_is_read_but_to_log(self, tiny_options, workdir, precision, monkeypatch):
        """An iteration that does not log brings nothing from the device to the host."""
        tiny_options["logger"]["print_freq"] = 100
        tiny_options["train"] |= {"precision": precision, "clip_grad_norm_g": 1.0, "accumulate": 2}
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        model.feed_data(next(data)[-1])
        model.optimize_parameters(1)  # what is made once is made
        model.feed_data(next(data)[-1])

        def read(*args: Any, **kwargs: Any) -> None:
            raise AssertionError("a value was read")

        with monkeypatch.context() as patch:
            for name in ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "cpu", "numpy"):
                patch.setattr(torch.Tensor, name, read)
            model.optimize_parameters(2)
        assert model.get_current_log()["l_g_pix"] > 0

    @pytest.mark.gpu
    @pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
    def test_nothing_waits_for_the_gpu_but_to_log(self, tiny_options, workdir, precision):
        tiny_options["num_gpu"] = 1
        tiny_options["logger"]["print_freq"] = 100
        tiny_options["train"]["precision"] = precision
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        waits: list[str] = []
        for iteration in (1, 2, 3):
            batch = {key: v.pin_memory() if torch.is_tensor(v) else v for key, v in next(data)[-1].items()}
            torch.cuda.set_sync_debug_mode("warn" if iteration == 3 else "default")
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always")
                    model.feed_data(batch)
                    model.optimize_parameters(iteration)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            waits += [f"{one.filename}:{one.lineno}" for one in caught if "called a synchronizing" in str(one.message)]
        assert waits == []  # all of them at once
        assert model.get_current_log()["l_g_pix"] > 0

    def test_accumulate(self, tiny_options, workdir):
        """Without BatchNorm and means over the batch, parts give the whole batch's step."""
        del tiny_options["network_d"]
        for block in ("disc_perceptual_opt", "gan_opt", "optim_d"):
            del tiny_options["train"][block]
        results = []
        for parts in (1, 2):
            opt = resolved(tiny_options | {"train": tiny_options["train"] | {"accumulate": parts}})
            torch.manual_seed(0)
            model, data = build_model(opt), TrainingData(opt).batches(0, 0)
            seen = []
            model.net_g.register_forward_pre_hook(lambda net, args, seen=seen: seen.append(len(args[0])))
            model.feed_data(next(data)[-1])
            model.optimize_parameters(1)
            assert seen == [2 // parts] * parts
            assert model.output.shape == (2, 3, 64, 64)
            results.append((model.get_current_log(), [p.grad.clone() for p in model.net_g.parameters()]))
        assert results[1][0] == pytest.approx(results[0][0], rel=1e-3, abs=1e-6)
        for one, other in zip(results[0][1], results[1][1], strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=1e-6)

    def test_accumulate_with_a_discriminator(self, tiny_options, workdir):
        tiny_options["train"]["accumulate"] = 2
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        before = weights(model.net_d)
        model.feed_data(next(data)[-1])
        model.optimize_parameters(1)
        assert model.net_d.bn1_0.num_batches_tracked == 4, "two parts, GT and SR each"
        assert any(not torch.equal(before[key], value) for key, value in weights(model.net_d).items())

    def test_clip_grad_norm(self, tiny_options, workdir):
        tiny_options["train"] |= {"clip_grad_norm_g": 1e-3, "clip_grad_norm_d": 1e-4}
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        model.feed_data(next(data)[-1])
        model.optimize_parameters(1)
        for name, net, norm in (("g", model.net_g, 1e-3), ("d", model.net_d, 1e-4)):
            clipped = sum(p.grad.double().square().sum() for p in net.parameters()).sqrt()
            assert clipped.item() == pytest.approx(norm, rel=1e-3)
            assert model.log_dict[f"grad_norm_{name}"] > norm

    def test_in_a_process_group(self, tiny_options, workdir):
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        try:
            opt = resolved(tiny_options) | {"dist": True}
            model = build_model(opt)
            for net in (model.net_g, model.net_d):
                assert isinstance(net, torch.nn.parallel.DistributedDataParallel)
                assert not net.broadcast_buffers, "D runs twice in a step; its buffers must not be written between"
            model.feed_data(next(TrainingData(opt).batches(0, 0))[-1])
            model.optimize_parameters(1)
            assert all(p.grad is not None for net in (model.net_g, model.net_d) for p in net.parameters())
            model.save(0, 1)
        finally:
            torch.distributed.destroy_process_group()
        saved = torch.load("experiments/tiny/models/net_d_1.pth", weights_only=True)["params"]
        assert "conv0_0.weight" in saved, "no module. prefix in files"

    def test_gradients_are_averaged_with_the_last_part(self, tiny_options, workdir):
        tiny_options["train"]["accumulate"] = 2
        torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
        try:
            opt = resolved(tiny_options) | {"dist": True}
            model = build_model(opt)
            seen = {"g": [], "d": []}
            for key, net in (("g", model.net_g), ("d", model.net_d)):
                net.register_forward_pre_hook(
                    lambda net, args, kwargs, key=key: seen[key].append(net.require_backward_grad_sync),
                    with_kwargs=True,
                )
            model.feed_data(next(TrainingData(opt).batches(0, 0))[-1])
            model.optimize_parameters(1)
        finally:
            torch.distributed.destroy_process_group()
        assert seen == {"g": [False, True], "d": [False, False, True, True]}

    @pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
    def test_lower_precision(self, tiny_options, workdir, precision, dtype):
        logs = {}
        for name in ("fp32", precision):
            tiny_options["train"]["precision"] = name
            opt = resolved(tiny_options)
            torch.manual_seed(0)
            model, data = build_model(opt), TrainingData(opt).batches(0, 0)
            if name == "fp16":
                model.scaler.load_state_dict(model.scaler.state_dict() | {"scale": 256.0})
            seen = []
            for net in (model.net_g.conv_first, model.net_d.conv0_0):
                net.register_forward_hook(lambda net, args, out, seen=seen: seen.append(out.dtype))
            model.feed_data(next(data)[-1])
            model.optimize_parameters(1)
            assert set(seen) == {torch.float32 if name == "fp32" else dtype}
            assert all(p.dtype == p.grad.dtype == torch.float32 for p in model.net_g.parameters())
            logs[name] = model.get_current_log()
        assert logs[precision].pop("loss_scale", None) == (256 if precision == "fp16" else None)
        for key, value in logs["fp32"].items():
            if key.startswith(("l_", "grad_norm", "grad_g_pix", "grad_g_gan")):
                assert logs[precision][key] == pytest.approx(value, rel=0.05), key

    def test_lower_precision_while_d_trains_alone(self, tiny_options, workdir):
        tiny_options["train"] |= {"precision": "bf16", "net_d_init_iters": 1}
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        seen = []
        for net in (model.net_g.conv_first, model.net_d.conv0_0):
            net.register_forward_hook(lambda net, args, out: seen.append(out.dtype))
        model.feed_data(next(data)[-1])
        model.optimize_parameters(1)
        assert seen == [torch.bfloat16] * 3
        assert model.output.dtype == torch.float32

    def test_fp16_finds_its_scale(self, tiny_options, workdir, caplog):
        caplog.set_level("INFO")
        tiny_options["train"]["precision"] = "fp16"
        opt = resolved(tiny_options)
        model, data = build_model(opt), TrainingData(opt).batches(0, 0)
        model.scaler.load_state_dict(model.scaler.state_dict() | {"scale": 2.0**40})
        before = weights(model.net_g)
        for iteration in range(1, 40):
            model.feed_data(next(data)[-1])
            model.optimize_parameters(iteration)
        log = model.get_current_log()
        assert 0 < log["skipped_steps"] < 35
        assert log["loss_scale"] == 2.0 ** (40 - log["skipped_steps"])
        assert any(not torch.equal(before[key], value) for key, value in weights(model.net_g).items())
        assert not [record for record in caplog.records if record.levelname == "WARNING"], "that is how it works"

    def test_the_scale_is_in_the_checkpoint(self, tiny_options, workdir):
        tiny_options["train"]["precision"] = "fp16"
        opt = resolved(tiny_options)
        model = build_model(opt)
        model.scaler.load_state_dict(model.scaler.state_dict() | {"scale": 512.0, "_growth_tracker": 7})
        model.save(0, 1)
        again = build_model(opt)
        again.resume_training(torch.load("experiments/tiny/training_states/1.state", weights_only=True))
        assert again.scaler.state_dict()["scale"] == 512.0
        assert again.scaler.state_dict()["_growth_tracker"] == 7

    def test_channels_last_changes_the_layout_only(self, tiny_options, workdir):
        results = []
        for wanted in (False, True):
            tiny_options["train"]["channels_last"] = wanted
            opt = resolved(tiny_options)
            torch.manual_seed(0)
            model, data = build_model(opt), TrainingData(opt).batches(0, 0)
            for net in (model.net_g, model.net_d, model.net_g_ema):
                weight = next(p for p in net.parameters() if p.dim() == 4 and p.shape[1] > 1)
                assert weight.is_contiguous(memory_format=torch.channels_last) == wanted
            model.feed_data(next(data)[-1])
            model.optimize_parameters(1)
            results.append(model.get_current_log())
            model.save(0, 1)
        assert results[1] == pytest.approx(results[0], rel=1e-3, abs=1e-6)
        saved = torch.load("experiments/tiny/models/net_g_1.pth", weights_only=True)["params"]
        assert all(value.is_contiguous() for value in saved.values()), "files are in the usual layout"

    def test_channels_last_with_upstreams_discriminator(self, tiny_options, workdir):
        options = esrgan_options(tiny_options)
        options["train"]["channels_last"] = True
        model = build_model(resolved(options))
        gt = torch.rand(2, 3, 128, 128)
        model.feed_data({"lq": torch.nn.functional.avg_pool2d(gt, 4), "gt": gt})
        model.optimize_parameters(1)
        assert model.net_g(model.lq).is_contiguous(memory_format=torch.channels_last)

    def test_compile(self, tiny_options, workdir):
        """Compiled networks give the same step, names in files are as ever, and validation runs uncompiled."""
        torch.save(
            {
                f"features.{n}.{key}": torch.randn(shape, generator=torch.Generator().manual_seed(n)) / 9
                for n, width, channels in ((0, 64, 3), (2, 64, 64))
                for key, shape in (("weight", (width, channels, 3, 3)), ("bias", (width,)))
            },
            "vgg.pth",
        )
        tiny_options["train"]["perceptual_opt"] = {
            "type": "VGGPerceptualLoss",
            "layer_weights": {"conv1_2": 1.0},
            "vgg_weights": "vgg.pth",
        }
        logs = []
        tiny_options["train"]["compile_backend"] = "aot_eager"
        for option in (False, True):
            tiny_options["train"]["compile"] = option
            opt = resolved(tiny_options)
            torch.manual_seed(0)
            model, data = build_model(opt), TrainingData(opt).batches(0, 0)
            perceptual = next(term.loss for term in model.terms if term.key == "l_g_percep")
            for net in (model.net_g, model.net_d, perceptual):
                assert (net._compiled_call_impl is not None) == option
            for iteration in (1, 2):
                model.feed_data(next(data)[-1])
                model.optimize_parameters(iteration)
            logs.append(model.get_current_log())
            assert model.net_d.bn1_0.num_batches_tracked == (8 if option else 4), "passes shared if not compiled"
            counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
            model.save(0, 1)
            del model.net_g_ema  # which is not compiled
            model.feed_data({"lq": torch.rand(1, 3, 9, 7)})
            model.test()
            assert model.output.shape == (1, 3, 36, 28)
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == counted
        assert counted > 0
        assert logs[1] == pytest.approx(logs[0], rel=1e-3, abs=1e-5)
        saved = torch.load("experiments/tiny/models/net_g_1.pth", weights_only=True)["params"]
        assert "conv_first.weight" in saved
