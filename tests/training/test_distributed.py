import os
import re
import signal
import time
from copy import deepcopy
from pathlib import Path
from typing import Any, ClassVar

import basicsr  # noqa: F401
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from gramgan_plugin.errors import Preempted, UserError
from gramgan_plugin.losses import MaskedRaGANLoss
from gramgan_plugin.utils import distributed
from tests.messages import assert_message
from tests.training.two_processes import basicsr as command
from tests.training.two_processes import together

DIED = "another process of this run has died"


# What the processes run. They stand here, not in the tests, so that other processes can import them.
def talk() -> dict[str, Any]:
    rank, world = distributed.start("pytorch")
    facts = {
        "place": (rank, world),
        "agree": [distributed.agree(rank), distributed.agree(-rank), distributed.agree(int(rank == 0))],
        "gather": distributed.gather({"rank": rank, "of": "a" * (1000 * rank)}),
        "first": distributed.gather_on_first(rank + 10),
    }
    distributed.stop(clean=True)
    return facts | {"left": not torch.distributed.is_initialized()}


def die(how: str) -> None:
    """Process 1 ends in some way; process 0 waits for it where it would."""
    with distributed.joined("pytorch") as (rank, _):
        distributed.agree(0)
        if rank == 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if how == "error":
                raise UserError("a mistake of its own")
            if how == "bug":
                raise ValueError("a bug of ours")
        elif how == "error":
            return  # it waits in `stop`
        elif how == "bug":
            torch.distributed.all_reduce(torch.zeros(3))
        else:
            distributed.gather(1)


def preempted() -> float:
    """Both are pre-empted, process 0 later; when this one has left."""
    try:
        with distributed.joined("pytorch") as (rank, _):
            if rank == 0:
                time.sleep(1)
            raise Preempted("saved")
    except Preempted:
        return time.monotonic()


def adversarial_gradients() -> dict[str, Any]:
    """Each process's losses and averaged gradients, with its share of the batch."""
    rank, world = distributed.start("pytorch")
    result = {name: _losses(rank, world, **options) for name, options in VARIANTS.items()}
    loss, fake = MaskedRaGANLoss(), torch.full((2, 1), float(rank))
    with torch.no_grad():
        outside = loss.generator(fake, 2 * fake)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = loss.generator(fake, 2 * fake)
    result["autocast"] = torch.equal(inside, outside) and inside.dtype == torch.float32
    distributed.stop(clean=True)
    return result


VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "full": {"detach_mean": False},
    "own": {"global_mean": False},
    "own full": {"global_mean": False, "detach_mean": False},
}


def _losses(rank: int, world: int, **options: Any) -> dict[str, Any]:
    """G's and D's losses and gradients for the samples rank, rank + world, ... of a batch of 6."""
    random = torch.Generator().manual_seed(0)
    gt, noise = (torch.randn(6, 4, generator=random, dtype=torch.float64) * scale for scale in (3, 1))
    gt[::2] += 4  # so that the processes' own means differ
    noise[::2] -= 2
    torch.manual_seed(1)
    net_g, net_d = nn.Linear(4, 4).double(), nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    if world > 1:
        net_g, net_d = DistributedDataParallel(net_g), DistributedDataParallel(net_d)
    gt, noise = gt[rank::world], noise[rank::world]
    loss = MaskedRaGANLoss(loss_weight=1.0, **options)
    bare = net_d.module if world > 1 else net_d
    bare.requires_grad_(False)
    sr = net_g(noise)
    l_g = loss.generator(bare(gt), bare(sr))
    l_g.backward()
    bare.requires_grad_(True)
    real, fake = net_d(torch.cat([gt, sr.detach()])).chunk(2)
    l_d = sum(loss.discriminator(real, fake))
    l_d.backward()
    gradients = [p.grad for net in (net_g, net_d) for p in net.parameters()]
    return {"losses": [l_g.item(), l_d.item()], "gradients": [g.tolist() for g in gradients]}


def validate_shared(photos: str, val: dict[str, Any]) -> Any:
    """`validate` in a group, or alone where there is none."""
    from gramgan_plugin.training.validation import validate
    from tests.training.test_validation import Bicubic, Log, loader_of, options

    launcher = "none" if os.environ["WORLD_SIZE"] == "1" else "pytorch"
    with distributed.joined(launcher) as (rank, world):
        opt = options(Path.cwd() / f"world{world}", **val) | {"rank": rank, "world_size": world}
        if rank != 0:
            opt["path"]["visualization"] = str(Path.cwd() / "not_of_rank_0")
        return validate(Bicubic(), [loader_of(Path(photos))], 5, opt, Log())


def one_process_tests(options: dict[str, Any]) -> bool:
    """Process 1 alone calls `test` of models in the midst of their training."""
    from gramgan_plugin.config import resolve_options
    from gramgan_plugin.models.build import build_model

    with distributed.joined("pytorch") as (rank, world):
        for model_type, ema in (("GramGANModel", 0.9), ("GramGANModel", 0), ("SRModel", 0)):
            options["train"]["ema_decay"] = ema
            options["model_type"] = model_type
            opt = resolve_options(deepcopy(options), is_train=True, launcher="pytorch")
            model = build_model(opt | {"rank": rank, "world_size": world})
            assert isinstance(model.net_g, DistributedDataParallel)
            for iteration in (1, 2):
                model.feed_data({"gt": torch.rand(1, 3, 64, 64), "lq": torch.rand(1, 3, 16, 16)})
                model.optimize_parameters(iteration)
                if rank == 1:
                    model.test()
    return True


class TestTalking:
    def test_two(self, workdir):
        ends = together(2, talk)
        assert [end.error for end in ends] == [None, None]
        for rank, end in enumerate(ends):
            assert end.value["place"] == (rank, 2)
            assert end.value["agree"] == [1, 0, 1]
            assert end.value["gather"] == [{"rank": 0, "of": ""}, {"rank": 1, "of": "a" * 1000}]
            assert end.value["first"] == ([10, 11] if rank == 0 else [])
            assert end.value["left"]

    def test_alone(self):
        with distributed.joined("none") as place:
            assert place == (0, 1)
            assert distributed.agree(3) == 3
            assert distributed.gather("x") == distributed.gather_on_first("x") == ["x"]


class TestDying:
    @pytest.mark.parametrize(
        ("how", "other"),
        [
            ("killed", None),
            ("error", ("UserError", "a mistake of its own")),
            ("bug", ("ValueError", "a bug of ours")),
        ],
    )
    def test_the_other_is_warned(self, workdir, how, other):
        first, second = together(2, die, how, timeout=40)
        assert first.error is not None
        assert first.error[0] == "PeerLost"
        assert first.error[1].startswith(DIED)
        assert max(first.seconds, second.seconds) < 20
        if how == "killed":
            assert second.code == -signal.SIGKILL
        else:
            assert second.error == other

    def test_pre_empted_together(self, workdir):
        first, second = together(2, preempted)
        assert (first.error, second.error) == (None, None)
        assert second.value > first.value - 0.5, "it has waited"

    @pytest.mark.parametrize(
        "text",
        [
            "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:24414",
            "[../third_party/gloo/gloo/transport/tcp/pair.cc:144] writev [::1]:2: Broken pipe",
            "[../gloo/transport/tcp/pair.cc:598] Connection reset by peer",
            "NCCL error in: ProcessGroupNCCL.cpp:2, ncclRemoteError: A call failed possibly due to a network error",
        ],
    )
    def test_what_backends_say(self, text):
        with pytest.raises(distributed.PeerLost, match=DIED), distributed.peer_errors():
            raise RuntimeError(text)

    def test_silence(self):
        text = "[/gloo/gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 1800000ms for recv operation"
        with pytest.raises(distributed.PeerLost, match="not answered for too long"), distributed.peer_errors():
            raise RuntimeError(text)

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("Expected to have finished reduction in the prior iteration"),
            RuntimeError("Connection reset by peer"),
            torch.distributed.DistBackendError("ncclInvalidUsage: Duplicate GPU detected"),
            OSError("Broken pipe"),
        ],
    )
    def test_other_errors_are_left_alone(self, error):
        with pytest.raises(type(error)) as raised, distributed.peer_errors():
            raise error
        assert raised.value is error


class TestStarting:
    @pytest.fixture(autouse=True)
    def _environment(self, monkeypatch):
        for name in list(os.environ):
            if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
                monkeypatch.delenv(name)

    @pytest.fixture
    def asked(self, monkeypatch):
        """What the process group would have been asked for."""
        seen = {}

        def init(backend: str) -> None:
            seen["backend"] = backend
            seen.update({name: os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")})

        monkeypatch.setattr(torch.distributed, "init_process_group", init)
        monkeypatch.setattr(torch.distributed, "get_rank", lambda: int(os.environ["RANK"]))
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: int(os.environ["WORLD_SIZE"]))
        return seen

    def slurm(self, monkeypatch, **changes: str) -> None:
        values = {"PROCID": "3", "NTASKS": "8", "LOCALID": "1", "JOB_ID": "77", "STEP_ID": "0"}
        for name, value in (values | {"STEP_NODELIST": "gpu[03-04,7],x1"} | changes).items():
            monkeypatch.setenv(f"SLURM_{name}", value)
        # Those that `start` sets are to be gone after the test.
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.setenv(name, "x")
            os.environ.pop(name)

    def test_slurm(self, monkeypatch, asked):
        self.slurm(monkeypatch)
        assert distributed.start("slurm") == (3, 8)
        assert asked["MASTER_ADDR"] == "gpu03"
        assert 15000 <= int(asked["MASTER_PORT"]) < 30000

    def test_jobs_on_one_machine_have_ports_of_their_own(self, monkeypatch, asked):
        ports = []
        for changes in ({}, {"JOB_ID": "78"}, {"STEP_ID": "1"}, {"PROCID": "4"}):
            self.slurm(monkeypatch, **changes)
            distributed.start("slurm")
            ports.append(asked["MASTER_PORT"])
        assert len(set(ports)) == 3
        assert ports[0] == ports[3], "the same for all processes of a job"

    @pytest.mark.parametrize(("gpus", "backend"), [(True, "cpu:gloo,cuda:nccl"), (False, "gloo")])
    def test_backend(self, monkeypatch, asked, gpus, backend):
        self.slurm(monkeypatch)
        devices = []
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
        monkeypatch.setattr(torch.cuda, "set_device", devices.append)
        distributed.start("slurm", use_gpus=gpus)
        assert (asked["backend"], devices) == (backend, [1] if gpus else [])

    @pytest.mark.parametrize(("launcher", "how"), [("pytorch", "torchrun"), ("slurm", "srun")])
    def test_outside_a_launcher(self, launcher, how):
        with pytest.raises(UserError, match=f"RANK, .*, MASTER_PORT not set; .* {how}"):
            distributed.start(launcher)

    PLACE: ClassVar = {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "2",
    }

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("MASTER_PORT", "x", "MASTER_PORT is 'x', expected a whole number"),
            ("MASTER_PORT", "0", "MASTER_PORT is '0', expected a whole number"),
            ("MASTER_PORT", "65536", "MASTER_PORT is '65536', expected a port"),
            ("RANK", "a", "RANK is 'a', expected a whole number"),
            ("RANK", "-1", "RANK is '-1', expected a whole number"),
            ("RANK", "", "RANK is '', expected a whole number"),
            ("RANK", "\u0663", "RANK is '\u0663', expected a whole number"),
            ("RANK", "1\n", "expected a whole number"),
            ("RANK", "9" * 5000, "expected a whole number"),
            ("RANK", "5", "RANK is '5', but there are 2 processes"),
            ("RANK", "2", "RANK is '2', but there are 2 processes"),
            ("WORLD_SIZE", "0", "WORLD_SIZE is '0', expected a whole number"),
            ("WORLD_SIZE", "2.0", "WORLD_SIZE is '2.0', expected"),
            ("LOCAL_RANK", "x", "LOCAL_RANK is 'x', expected"),
            ("MASTER_ADDR", "", "MASTER_ADDR is '', expected a machine"),
            ("MASTER_ADDR", "a..b", "MASTER_ADDR is 'a..b', expected"),
            ("MASTER_ADDR", "[::1", "MASTER_ADDR is '[::1', expected"),
        ],
    )
    def test_what_no_launcher_sets(self, monkeypatch, asked, capsys, name, value, message):
        for key, own in {**self.PLACE, name: value}.items():
            monkeypatch.setenv(key, own)
        with pytest.raises(UserError, match=f"^--launcher pytorch: .*{re.escape(message)}") as caught:
            distributed.start("pytorch")
        assert asked == {}
        assert len(str(caught.value)) < 200

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("PROCID", "a", "SLURM_PROCID is 'a', expected"),
            ("PROCID", "8", "SLURM_PROCID is '8', but there are 8 processes"),
            ("NTASKS", "x", "SLURM_NTASKS is 'x', expected"),
            ("LOCALID", "-1", "SLURM_LOCALID is '-1', expected"),
            ("STEP_NODELIST", "[", "MASTER_ADDR is '[', expected a machine"),
        ],
    )
    def test_what_slurm_does_not_set(self, monkeypatch, asked, name, value, message):
        self.slurm(monkeypatch, **{name: value})
        with pytest.raises(UserError, match=f"^--launcher slurm: {re.escape(message)}"):
            distributed.start("slurm")
        assert asked == {}

    @pytest.mark.parametrize(
        "address", ["127.0.0.1", "::1", "fe80::1%eth0", "gpu03", "gpu-03.cluster.example", "node_1."]
    )
    def test_what_they_do(self, monkeypatch, asked, address):
        for key, own in {**self.PLACE, "MASTER_ADDR": address, "RANK": "1", "MASTER_PORT": "65535"}.items():
            monkeypatch.setenv(key, own)
        assert distributed.start("pytorch") == (1, 2)
        monkeypatch.delenv("LOCAL_RANK")
        assert distributed.start("pytorch") == (1, 2)

    def test_the_command(self, monkeypatch, tiny_options, write_options, capsys):
        for key, own in {**self.PLACE, "MASTER_PORT": "x"}.items():
            monkeypatch.setenv(key, own)
        assert command("train", "-opt", write_options(tiny_options), "--launcher", "pytorch") == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert_message(line, "basicsr train: --launcher pytorch", "MASTER_PORT is 'x'")

    def test_a_port_in_use(self, monkeypatch):
        import socket

        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            one.listen()
            for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "127.0.0.1"}.items():
                monkeypatch.setenv(name, str(value))
            monkeypatch.setenv("MASTER_PORT", str(one.getsockname()[1]))
            with pytest.raises(UserError, match=r"cannot meet at 127\.0\.0\.1:\d+ "):
                distributed.start("pytorch")


class TestGlobalMean:
    @pytest.fixture(scope="class")
    @classmethod
    def ends(cls, tmp_path_factory):
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("gradients"))
            ends = together(2, adversarial_gradients)
        assert [end.error for end in ends] == [None, None], ends[0].stderr
        return [end.value for end in ends]

    @pytest.mark.parametrize("variant", ["default", "full"])
    def test_as_one_process_with_the_whole_batch(self, ends, variant):
        whole = _losses(0, 1, **VARIANTS[variant])
        for own in ends:
            torch.testing.assert_close(own[variant]["gradients"], whole["gradients"], rtol=1e-12, atol=1e-14)
        means = [sum(pair) / 2 for pair in zip(*(own[variant]["losses"] for own in ends), strict=True)]
        assert means == pytest.approx(whole["losses"], rel=1e-12)

    @pytest.mark.parametrize("variant", ["own", "own full"])
    def test_own_means_are_something_else(self, ends, variant):
        whole = _losses(0, 1, **VARIANTS[variant])
        assert ends[0][variant]["gradients"] == ends[1][variant]["gradients"], "averaged"
        pairs = zip(ends[0][variant]["gradients"], whole["gradients"], strict=True)
        apart = [bool((torch.tensor(a) - torch.tensor(b)).norm() > 1e-3 * torch.tensor(b).norm()) for a, b in pairs]
        assert apart[0], "G's weight"
        assert apart[2], "D's"

    def test_autocast(self, ends):
        assert all(own["autocast"] for own in ends)


class TestValidation:
    def test_as_one_process(self, photos, workdir):
        val = {"save_img": True, "compare": 3}
        (alone,) = together(1, validate_shared, str(photos), val)
        ends = together(2, validate_shared, str(photos), val)
        assert [end.error for end in (alone, *ends)] == [None] * 3, ends[0].stderr
        assert ends[0].value == ends[1].value == alone.value, "to the last bit"
        assert len(alone.value["set"]) == 2
        one, two = (
            {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
            for root in (Path("world1"), Path("world2"))
        )
        assert len(one) == 5 + 3 * 3
        assert one == two
        assert not Path("not_of_rank_0").exists()

    def test_more_processes_than_images(self, photos, workdir):
        for number in range(1, 5):
            (photos / f"photo{number}.png").unlink()
        ends = together(2, validate_shared, str(photos), {})
        assert [end.error for end in ends] == [None, None]
        assert ends[0].value == ends[1].value
        assert set(ends[0].value["set"]) == {"psnr", "ssim"}

    def test_an_image_that_one_of_them_cannot_read(self, photos, workdir):
        (photos / "photo3.png").write_bytes(b"no picture")
        first, second = together(2, validate_shared, str(photos), {"on_error": "stop"}, timeout=40)
        assert second.error[0] == "UserError"
        assert "photo3.png" in second.error[1]
        assert first.error[0] == "PeerLost"

    def test_or_it_is_left_out_on_all_of_them(self, photos, workdir):
        (photos / "photo3.png").write_bytes(b"no picture")
        (alone,) = together(1, validate_shared, str(photos), {}, timeout=40)
        ends = together(2, validate_shared, str(photos), {}, timeout=40)
        assert [end.error for end in ends] == [None, None], ends[1].stderr
        assert ends[0].value == ends[1].value == alone.value

    def test_a_picture_that_the_first_cannot_write(self, photos, workdir):
        Path("world2").write_text("in the way")
        first, second = together(2, validate_shared, str(photos), {}, timeout=40)
        assert "world2" in first.error[1]
        assert second.error[0] == "PeerLost"

    def test_one_process_alone_runs_a_wrapped_model(self, tiny_options, workdir):
        del tiny_options["network_d"]
        for block in ("gan_opt", "disc_perceptual_opt", "gram_patch_opt", "optim_d"):
            del tiny_options["train"][block]
        ends = together(2, one_process_tests, tiny_options, timeout=60)
        assert [(end.value, end.error) for end in ends] == [(True, None)] * 2, ends[1].stderr
