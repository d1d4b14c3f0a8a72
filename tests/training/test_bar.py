import fcntl
import logging
import os
import re
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator

import pytest

from gramgan_plugin.training.bar import MOST_LOSSES, ProgressBar, main_losses

LOG = {
    "l_g_pix": 0.0123,
    "l_g_percep": 3.0,
    "l_g_gram": 0.00034,
    "l_g_dp": 0.11,
    "l_g_gan": 0.025,
    "l_d_real": 0.25,
    "l_d_fake": 0.125,
    "d_accuracy": 0.9,
    "grad_g_pix": 0.002,
}


class Terminal:
    """A pseudo-terminal of some columns, and what has been written to it."""

    def __init__(self, columns: int) -> None:
        self.ours, theirs = os.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.stream = open(theirs, "w", encoding="utf-8")  # noqa: PTH123, SIM115
        self.received: list[bytes] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        while True:
            try:
                block = os.read(self.ours, 4096)
            except OSError:  # Linux's way to say that the other end is closed
                return
            if not block:
                return
            self.received.append(block)

    def lines(self) -> list[str]:
        """What stood in the last line at each time, and the lines that went by. Closes it."""
        if not self.stream.closed:
            self.stream.close()
            self.reader.join(timeout=10)
            os.close(self.ours)
        text = b"".join(self.received).decode()
        return [line.strip() for line in re.split(r"[\r\n]+", text) if line.strip()]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Terminal]]:
    """Makes stderr a terminal; called in the test, since pytest sets stderr anew before it."""
    opened = []

    def open_terminal(columns: int = 120) -> Terminal:
        opened.append(Terminal(columns))
        monkeypatch.setattr(sys, "stderr", opened[-1].stream)
        return opened[-1]

    yield open_terminal
    monkeypatch.undo()
    for one in opened:
        one.lines()


class TestMainLosses:
    def test_feature(self):
        assert main_losses(LOG) == {"pix": 0.0123, "gram": 0.00034, "dp": 0.11, "gan": 0.025, "d": 0.375}
        assert main_losses({"l_other": 1.0, "l_g_pix": 2.0, "out_d_real": 3.0}) == {"pix": 2.0, "other": 1.0}
        assert main_losses({"l_d_real": 1.0}) == {"d_real": 1.0}
        assert main_losses({}) == {}
        assert len(main_losses({f"l_g_{n}": 1.0 for n in range(9)})) == MOST_LOSSES


class TestProgressBar:
    def test_what_it_shows(self, terminal):
        screen, bar = terminal(140), ProgressBar("a_run", 200, 50)
        for _ in range(50):
            bar.tick()
        bar.show(1e-4, LOG)
        bar.close()
        last = screen.lines()[-1]
        assert re.match(r"a_run:  50%\|.*\| 100/200 \[\d\d:\d\d<\d\d:\d\d, ", last), last
        assert last.endswith("it/s, lr 0.0001, pix 0.012, gram 0.00034, dp 0.11, gan 0.025, d 0.38]"), last

    def test_the_start_is_no_work_done(self, terminal):
        """A run resumed from 1,000,000 has not come there in this second."""
        screen, bar = terminal(), ProgressBar("a", 2_000_000, 1_000_000)
        bar.show(1e-4, {})
        bar.close()
        assert "1000000/2000000" in screen.lines()[0]
        assert all("?it/s" in line for line in screen.lines())

    @pytest.mark.parametrize(("columns", "values"), [(20, 0), (60, 0), (80, 1), (100, 3), (200, 6)])
    def test_a_value_is_whole_or_not_there(self, terminal, columns, values):
        screen, bar = terminal(columns), ProgressBar("a_rather_long_name_for_a_run", 100_000, 0)
        bar.tick()
        bar.show(1e-4, LOG)
        bar.close()
        last = screen.lines()[-1]
        assert len(last) <= columns
        whole = ["lr 0.0001", "pix 0.012", "gram 0.00034", "dp 0.11", "gan 0.025", "d 0.38"]
        shown = [part for part in re.split(r"[,\]]\s?", last.partition("<")[2])[2:] if part]
        assert shown == whole[: len(shown)], last
        assert len(shown) >= values, last
        assert ("%|" in last) == (columns == 200), "where the room is short, values come before the bar"

    def test_long_names_are_cut(self, terminal):
        screen = terminal()
        ProgressBar("x" * 50, 10, 0).close()
        assert screen.lines()[0].startswith("x" * 18 + "..:")

    def test_log_lines_go_by_above_it(self, terminal):
        screen = terminal()
        logger = logging.getLogger("basicsr")
        before = logger.handlers[:], logger.level
        console = logging.StreamHandler()
        console.setFormatter(logging.Formatter("INFO: %(message)s"))
        logger.handlers[:] = [console]
        logger.setLevel(logging.INFO)
        try:
            bar = ProgressBar("a", 10, 0)
            bar.tick()
            logger.info("Saving")
            bar.close()
            assert logger.handlers == [console], "the log has its own way back"
        finally:
            logger.handlers[:] = before[0]
            logger.setLevel(before[1])
        assert "INFO: Saving" in screen.lines(), "on a line of its own"
        assert screen.lines()[-1].startswith("a:"), "the bar stands below again"
