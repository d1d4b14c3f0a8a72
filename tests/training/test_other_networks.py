"""Training from and into other formats, and with networks of other projects."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from gramgan_plugin.checkpoints.networks import load_network
from gramgan_plugin.cli.main import main
from gramgan_plugin.inference.upscaler import Upscaler
from tests.checkpoints import generators as given_as
from tests.messages import assert_message

SPAN = {"type": "SPAN", "num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 4}


def test_spandrels_networks_train_resume_and_upscale(tiny_options, write_options, capsys):
    pytest.importorskip("spandrel")
    tiny_options["network_g"] = dict(SPAN)
    tiny_options["logger"]["save_checkpoint_freq"] = 2
    file = write_options(tiny_options)
    assert main(["check", "-opt", file]) == 0
    assert main(["train", "-opt", file]) == 0
    run = Path("experiments/tiny")
    before = torch.load(run / "models/net_g_2.pth", weights_only=True)["params"]
    after = torch.load(run / "models/net_g_4.pth", weights_only=True)["params"]
    assert any(not torch.equal(before[name], after[name]) for name in before)
    network = load_network(run / "models/net_g_4.pth")
    assert (network.architecture, network.scale) == ("SPAN", 4)
    image = (torch.rand(12, 20, 3) * 255).byte().numpy()
    assert Upscaler(network, engine="torch", precision="fp32")(image).shape == (48, 80, 3)


SRGAN = (
    {"type": "SRResNetBN", "num_feat": 8, "num_block": 1},
    {"type": "SRGANDiscriminator", "num_feat": 4, "input_size": 64},
)
SURGE = {"type": "SuRGeNet", "num_feat": 4, "num_block": 1}, {"type": "SuRGeCritic", "num_feat": 4}
UNET = SRGAN[0] | {"output": "tanh"}, {"type": "UNetDiscriminatorSNTaps", "num_feat": 4}


@pytest.mark.parametrize(("net_g", "net_d"), [SRGAN, SURGE, UNET], ids=["srgan", "surge", "unet"])
def test_networks_of_other_methods_train_and_upscale(tiny_options, write_options, capsys, net_g, net_d):
    """With the discriminator's features in a loss, and the Jensen-Shannon divergence."""
    tiny_options |= {"network_g": net_g, "network_d": net_d}
    tiny_options["train"]["disc_perceptual_opt"]["taps"] = [2, 7]
    tiny_options["train"]["extra_terms"] = {"js": {"type": "JensenShannonLoss"}}
    file = write_options(tiny_options)
    assert main(["check", "-opt", file]) == 0
    assert main(["train", "-opt", file]) == 0
    run = Path("experiments/tiny")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if "l_g_dp" in row]
    assert len(rows) == 4
    assert all(row["grad_g_dp"] > 0 and row["grad_g_js"] > 0 and row["l_d_real"] > 0 for row in rows)
    for net in ("net_g", "net_d"):
        before, after = (torch.load(run / f"models/{net}_{k}.pth", weights_only=True)["params"] for k in (2, 4))
        assert any(not torch.equal(before[name], after[name]) for name in before)
    network = load_network(run / "models/net_g_4.pth")
    assert (network.architecture.partition(" ")[0], network.scale) == (net_g["type"], 4)
    averaged = torch.load(run / "models/net_g_4.pth", weights_only=True)["params_ema"]
    assert all(torch.equal(tensor, averaged[name]) for name, tensor in network.net.state_dict().items())


def test_their_options_are_checked(tiny_options, write_options, capsys):
    pytest.importorskip("spandrel")
    tiny_options["network_g"] = SPAN | {"feature_chanels": 8}
    del tiny_options["network_g"]["feature_channels"]
    assert main(["check", "-opt", write_options(tiny_options)]) == 2
    where = "basicsr check: network_g.feature_chanels"
    assert_message(capsys.readouterr().err, where, "did you mean 'feature_channels'")
    tiny_options["network_g"] = {"type": "SPANN"}
    assert main(["check", "-opt", write_options(tiny_options)]) == 2
    assert "did you mean 'SPAN'?" in capsys.readouterr().err


@pytest.mark.parametrize("ema", [0.9, 0])
def test_safetensors_beside(tiny_options, write_options, capsys, ema):
    tiny_options["train"] |= {"ema_decay": ema, "total_iter": 4}
    tiny_options["logger"] |= {"save_checkpoint_format": "safetensors", "save_checkpoint_freq": 2, "keep_last": 1}
    assert main(["train", "-opt", write_options(tiny_options)]) == 0
    models = Path("experiments/tiny/models")
    assert sorted(path.name for path in models.glob("*.safetensors")) == [
        "net_g_4.safetensors",
        "net_g_latest.safetensors",
    ]
    key = "params_ema" if ema else "params"
    expected = torch.load(models / "net_g_4.pth", weights_only=True)[key]
    with safe_open(models / "net_g_4.safetensors", "pt") as flat:
        assert all(torch.equal(flat.get_tensor(name), tensor) for name, tensor in expected.items())
        facts = json.loads(flat.metadata()["metadata"])
    assert (facts["key"], facts["iteration"], facts["network_g"]["type"]) == (key, 4, "RRDBNet")
    listed = json.loads(Path("experiments/tiny/training_states/4.json").read_text())["files"]
    assert "models/net_g_4.safetensors" in listed


@pytest.mark.parametrize("rename", [given_as.original, given_as.old_arch, given_as.mmagic])
def test_check_and_train_start_from_other_formats(tiny_options, write_options, capsys, rename):
    state = given_as.rrdbnet(num_block=1).state_dict()
    torch.save(rename(state), "given.pth")
    tiny_options["path"]["pretrain_network_g"] = "given.pth"
    tiny_options["train"] |= {"total_iter": 1, "optim_g": {"type": "Adam", "lr": 1e-12}}
    file = write_options(tiny_options)
    assert main(["check", "-opt", file]) == 0
    assert main(["train", "-opt", file]) == 0
    trained = torch.load("experiments/tiny/models/net_g_latest.pth", weights_only=True)["params"]
    assert all(torch.allclose(trained[name], tensor, atol=1e-9) for name, tensor in state.items())
