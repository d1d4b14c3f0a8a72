import random

import numpy as np
import pytest
import torch

from gramgan_plugin.checkpoints.rng import get_rng_states, preserve_rng, set_rng_states

CPU = torch.device("cpu")


def _draw() -> list[float]:
    return [random.random(), random.gauss(0, 1), np.random.rand(), np.random.randn(), torch.rand(()).item()]


class TestRandomStates:
    def test_feature(self, tmp_path):
        """What is drawn after is what was drawn before; also the second half of a pair of normal numbers."""
        random.seed(1)
        np.random.seed(2)
        torch.manual_seed(3)
        _draw()  # an odd number of normal numbers from each: the other of the pair is kept
        states = get_rng_states(CPU)
        torch.save(states, tmp_path / "states")
        expected = [_draw(), _draw()]
        set_rng_states(torch.load(tmp_path / "states", weights_only=True), CPU)
        assert [_draw(), _draw()] == expected

    def test_without_a_half_pair(self):
        random.seed(1)
        np.random.seed(2)
        states = get_rng_states(CPU)
        expected = _draw()
        random.gauss(0, 1)
        np.random.randn()
        set_rng_states(states, CPU)
        assert _draw()[:4] == expected[:4]

    def test_exception(self):
        own = np.random.get_bit_generator()
        np.random.set_bit_generator(np.random.PCG64(1))
        try:
            with pytest.raises(ValueError, match=r"^numpy\.random draws from PCG64"):
                get_rng_states(CPU)
        finally:
            np.random.set_bit_generator(own)

    def test_a_process_that_was_not_there_keeps_its_own(self):
        before = random.getstate()
        set_rng_states([], CPU)
        assert random.getstate() == before


class TestPreserveRng:
    def test_feature(self):
        def draw() -> list[float]:
            # Normal numbers, which come in pairs of which one is kept.
            return [random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand(), torch.randn(()).item()]

        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        draw()
        with pytest.raises(KeyError), preserve_rng(CPU):  # noqa: PT012
            inside = draw()
            raise KeyError
        assert draw() == inside
