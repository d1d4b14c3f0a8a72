import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from gramgan_plugin.training.health import BALANCE_ITERATIONS, Health

HEALTHY = {
    "l_g_pix": 0.02,
    "l_g_gan": 0.02,
    "l_d_real": 0.05,
    "l_d_fake": 0.04,
    "out_d_real": 1.0,
    "out_d_fake": -2.0,
    "d_accuracy": 0.95,
    "grad_g_pix": 2e-3,
    "grad_g_dp": 0.2,
    "grad_g_gan": 5e-3,
    "grad_norm_g": 1e3,
    "mask_share": 0.9,
    "sr_contrast": 0.98,
}
WON = {"l_d_real": 2e-4, "l_d_fake": 2e-4, "d_accuracy": 1.0, "out_d_real": 5.0, "out_d_fake": -4.0}


def _warnings(logs: Iterable[Mapping[str, float]], every: int = 100, health: Health | None = None) -> list[str]:
    health = health or Health()
    return [line for number, log in enumerate(logs, start=1) for line in health.check(number * every, log)]


def test_a_sum_of_terms_may_be_negative():
    """Wasserstein and hinge terms, and terms that a balance has weighed to nothing, are no explosion."""
    for usual in (-0.15, 0.0, 0.005):
        log = {"l_g_gan": usual, "l_d_real": 0.5, "l_d_fake": 0.5, "d_accuracy": 0.8}
        assert _warnings([log] * 10 + [log | {"l_g_gan": 0.7}] * 3) == []


class TestWon:
    def test_reported_once(self):
        lines = _warnings([HEALTHY] * 10 + [HEALTHY | WON] * 100)
        assert len(lines) == 1
        assert lines[0].startswith("D has won: since iteration 1,100 ")
        assert "train.optim_d.lr" in lines[0]
        assert "\n" not in lines[0]

    def test_advice_names_what_is_off(self):
        """So that it can be copied into the option file."""
        (line,) = _warnings([HEALTHY | WON] * 30)
        assert "Turn on train.d_penalty_opt: {type: GradientPenalty, kind: r1}, train.instance_noise, " in line
        used = {"d_penalty_opt": {"type": "GradientPenalty"}, "net_d_every": 1, "instance_noise": None}
        (line,) = _warnings([HEALTHY | WON] * 30, health=Health(used))
        assert "Turn on train.instance_noise, train.net_d_every: 2, lower train.optim_d.lr" in line
        used |= {"net_d_every": 2, "instance_noise": {"sigma": 0.1, "until": 100}}
        (line,) = _warnings([HEALTHY | WON] * 30, health=Health(used))
        assert "Strengthen train.d_penalty_opt, lower" in line

    def test_not_before_it_has_lasted(self):
        health = Health()
        at = [n * 100 for n in range(1, 40) if health.check(n * 100, HEALTHY | WON)]
        assert at == [100 + BALANCE_ITERATIONS]
        assert not _warnings([HEALTHY | WON] * 4, every=5000), "four log lines are few"
        assert _warnings([HEALTHY | WON] * 5, every=5000)

    def test_one_batch_that_it_gets_wrong(self):
        wrong = HEALTHY | WON | {"d_accuracy": 0.97}
        assert not _warnings(([HEALTHY | WON] * 15 + [wrong]) * 10)

    def test_reported_again_after_it_has_gone_away(self):
        health = Health()
        assert len(_warnings([HEALTHY | WON] * 30, health=health)) == 1
        shaky = [line for n in range(3100, 9000, 100) for line in health.check(n, HEALTHY | (WON if n % 300 else {}))]
        assert shaky == [], "it flickers"
        assert not [line for n in range(9000, 9500, 100) for line in health.check(n, HEALTHY)]
        again = [line for n in range(9500, 13000, 100) for line in health.check(n, HEALTHY | WON)]
        assert len(again) == 1
        assert "since iteration 9,500" in again[0]

    def test_one_line_without_it_is_no_recovery(self):
        for healthy, times in ((1, 1), (2, 1), (3, 2)):
            assert len(_warnings([HEALTHY | WON] * 30 + [HEALTHY] * healthy + [HEALTHY | WON] * 30)) == times

    def test_of_basicsrs_models(self):
        """They log losses and mean logits."""
        upstream = {"l_g_pix": 0.02, "l_g_gan": 0.1, **{k: v for k, v in WON.items() if k != "d_accuracy"}}
        assert len(_warnings([upstream] * 50)) == 1
        assert not _warnings([upstream | {"out_d_fake": 4.8}] * 50), "small losses, and logits that are alike"
        assert not _warnings([{key: upstream[key] for key in ("l_g_pix", "l_d_real", "l_d_fake")}] * 50)

    def test_while_g_stands_still(self):
        assert not _warnings([WON] * 100)

    def test_a_critics_losses_mean_something_else(self):
        """Those of a Wasserstein GAN are minus the mean answer to GT, and the mean answer to SR."""
        for real, fake in ((0.4, 0.3997), (3.0, -3.0), (-0.0002, -0.0004), (0.0, 0.0)):
            log = {"l_g_gan": 1.0, "l_d_real": -real, "l_d_fake": fake, "out_d_real": real, "out_d_fake": fake}
            assert not _warnings([log] * 100)


class TestGuessing:
    @pytest.mark.parametrize("loss", [math.log(2) / 2, math.log(2)], ids=["relativistic", "vanilla"])
    def test_reported_once(self, loss):
        guess = {"l_d_real": loss, "l_d_fake": loss, "out_d_real": 0.01, "out_d_fake": 0.02, "d_accuracy": 0.45}
        lines = _warnings([HEALTHY | guess] * 100)
        assert len(lines) == 1
        assert lines[0].startswith("D is guessing: since iteration 100 ")
        assert "train.optim_d.lr" in lines[0]

    def test_a_d_that_learns(self):
        slow = {"l_d_real": 0.33, "l_d_fake": 0.33, "out_d_real": 0.08, "out_d_fake": 0.0, "d_accuracy": 0.55}
        assert not _warnings([HEALTHY | slow] * 100)
        right = {"l_d_real": math.log(2) / 2, "l_d_fake": math.log(2) / 2, "out_d_real": 0.01, "out_d_fake": 0.0}
        assert not _warnings([HEALTHY | right | {"d_accuracy": 0.8}] * 100)
        assert not _warnings([HEALTHY | right | {"d_accuracy": 0.5}] * 20), "the start of every run"


class TestPicture:
    @pytest.mark.parametrize(("contrast", "words"), [(0.2, "gone flat"), (0.0, "gone flat"), (3.0, "blown up")])
    def test_reported_once(self, contrast, words):
        lines = _warnings([HEALTHY] * 5 + [HEALTHY | {"sr_contrast": contrast}] * 30)
        assert len(lines) == 1
        assert f"the output has {words}: since iteration 600 " in lines[0]
        assert "train.optim_g.lr" in lines[0]

    def test_the_first_iterations_from_random_weights(self):
        ratios = [0.35, 0.44, 1.83, 0.9, 0.5, 0.45, 0.84, 0.9, 0.88]
        assert not _warnings([{"l_g_pix": 0.2, "sr_contrast": ratio} for ratio in ratios], every=10)
        assert not _warnings([{"l_g_pix": 0.2, "sr_contrast": 0.1}] * 50, every=10)

    def test_a_flat_crop_of_gt(self):
        """Its batch's ratio is large, since GT's contrast is almost 0."""
        assert not _warnings(([HEALTHY] * 4 + [HEALTHY | {"sr_contrast": 9.0}]) * 20)


class TestMask:
    def test_reported_once(self):
        lines = _warnings([HEALTHY | {"mask_share": 0.01}] * 30)
        assert len(lines) == 1
        assert "hides all but 1.0% of the pixels" in lines[0]
        assert "train.gan_opt.mask.threshold" in lines[0]
        assert not _warnings([HEALTHY | {"mask_share": 0.3}] * 30)


class TestDriven:
    @pytest.mark.parametrize(
        ("term", "block"),
        [("dp", "disc_perceptual_opt"), ("percep", "perceptual_opt"), ("mine", "extra_terms.mine")],
    )
    def test_names_the_weight(self, term, block):
        lines = _warnings([HEALTHY | {"grad_g_dp": 1e-3} | {f"grad_g_{term}": 5.0}] * 30)
        assert len(lines) == 1
        assert f"the gradient of l_g_{term} at SR" in lines[0]
        assert lines[0].endswith(f"Lower train.{block}.loss_weight")

    def test_what_is_ordinary(self):
        assert not _warnings([HEALTHY | {"grad_g_dp": 0.5}] * 50), "70 times the others"
        assert not _warnings([{"l_g_pix": 1.0, "grad_g_pix": 5.0, "grad_norm_g": 1e-9}] * 50), "the only term"
        assert not _warnings([{"l_g_pix": 1.0, "grad_g_pix": 5.0, "grad_g_gan": 0.0}] * 50), "the other is off"


class TestSkipped:
    def test_reported_once(self):
        lines = _warnings([HEALTHY | {"skipped_steps": 20.0}] * 30)
        assert len(lines) == 1
        assert "about 20% of them; lower" in lines[0]
        lines = _warnings([HEALTHY | {"skipped_steps": 20.0, "loss_scale": 1.0}] * 30)
        assert "set train.precision: bf16" in lines[0]

    def test_what_a_scaler_does(self):
        assert not _warnings([HEALTHY | {"skipped_steps": 1.0, "loss_scale": 65536.0}] * 30), "one in a hundred"
        start = [HEALTHY | {"skipped_steps": 1.0, "loss_scale": 2.0**n} for n in range(30, 16, -1)]
        assert not _warnings(start + [HEALTHY] * 100, every=1)
        assert not _warnings(([HEALTHY | {"skipped_steps": 50.0}] * 2 + [HEALTHY]) * 10), "now and then"


class TestExploded:
    def _lines(self, losses: list[float], **peaks: float) -> list[str]:
        health, lines = Health(), []
        for number, loss in enumerate(losses, start=1):
            lines += health.check(100 * number, {"l_g_pix": loss, **(peaks if number == len(losses) else {})})
        return lines

    def test_of_the_l1_stage(self):
        (line,) = self._lines([0.2, 0.08, 0.066, 369.0, 0.09, 0.09])
        assert line.startswith("the loss has exploded: by iteration 400 it was 369, 4,612 times")
        assert all(cure in line for cure in ("train.optim_g.lr", "clip_grad_norm_g", "max_grad_ratio"))

    def test_right_at_the_start(self):
        (line,) = self._lines([0.2, 3.2e6])
        assert "by iteration 200 it was 3.2e+06" in line

    def test_between_two_log_lines(self):
        (line,) = self._lines([0.2, 0.08, 0.066, 0.09], loss_peak=369.0, loss_peak_iter=342.0)
        assert "at iteration 342 it was 369" in line

    def test_of_basicsrs_models(self):
        health = Health()
        lines = [health.check(number, {"l_pix": loss}) for number, loss in enumerate([0.1, 0.1, 0.1, 20.0], start=1)]
        assert [len(lines) for lines in lines] == [0, 0, 0, 1]

    def test_what_is_ordinary(self):
        assert self._lines([0.5, 0.1, 0.05, 0.09, 0.02, 0.1, 0.03], loss_peak=0.3, loss_peak_iter=650.0) == []


class TestAnyLog:
    def test_absent_values_and_none(self):
        assert _warnings([{}] * 100) == []
        assert _warnings([{"l_pix": 1.0, "l_d": 0.0}] * 100) == []
        broken = [dict.fromkeys(HEALTHY, value) for value in (math.nan, math.inf, -math.inf)]
        assert _warnings(broken * 40) == []

    def test_a_healthy_run(self):
        assert _warnings([HEALTHY] * 500) == []

    def test_several_at_once(self):
        both = HEALTHY | WON | {"sr_contrast": 0.1}
        assert len(_warnings([both] * 50)) == 2


def test_the_small_shipped_run():
    """The values that train_gramgan_sample.yml has logged on two cores: D soon classifies all images correctly."""
    lines = (Path(__file__).parent / "sample_run.jsonl").read_text().splitlines()
    health = Health()
    records = [json.loads(line) for line in lines]
    assert records[-1]["d_accuracy"] == 1
    assert min(record["l_d_real"] + record["l_d_fake"] for record in records) < 1e-3
    assert [line for record in records for line in health.check(record.pop("iter"), record)] == []
