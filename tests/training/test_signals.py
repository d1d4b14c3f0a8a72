import importlib.util
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from gramgan_plugin.training.signals import STOPPING, stop_signals

SOURCE = Path(str(importlib.util.find_spec("gramgan_plugin.training.signals").origin))
CAUGHT = [name for name in STOPPING if hasattr(signal, name)]
# Without the package, whose training side takes seconds to import.
ALONE = """
import importlib.util, sys, time, hashlib
spec = importlib.util.spec_from_file_location("signals", sys.argv[1])
signals = importlib.util.module_from_spec(spec)
spec.loader.exec_module(signals)
with signals.stop_signals() as request:
    print("ready", flush=True)
    {work}
print(request.signal, flush=True)
"""


@pytest.fixture(autouse=True)
def as_before():
    handlers = {name: signal.getsignal(getattr(signal, name)) for name in CAUGHT}
    yield
    for name, handler in handlers.items():
        assert signal.getsignal(getattr(signal, name)) is handler, name
    descriptor = signal.set_wakeup_fd(-1)
    assert descriptor == -1
    assert not [thread for thread in threading.enumerate() if thread.name == "signals"]


class TestStopSignals:
    @pytest.mark.parametrize("name", CAUGHT)
    def test_smoke(self, name):
        number = getattr(signal, name)
        before = signal.getsignal(number)
        if before is signal.SIG_IGN:  # the tests themselves run under nohup
            signal.signal(number, signal.SIG_DFL)
        try:
            with stop_signals(announce=False) as request:
                assert request.signal is None
                signal.raise_signal(number)
                assert request.signal == name
        finally:
            signal.signal(number, before)

    def test_the_first_counts(self):
        with stop_signals(announce=False) as request:
            for name in ("SIGTERM", "SIGUSR1"):
                signal.raise_signal(getattr(signal, name))
            assert request.signal == "SIGTERM"

    def test_after_an_error(self):
        with pytest.raises(KeyError), stop_signals(announce=False):  # noqa: PT012
            signal.raise_signal(signal.SIGTERM)
            raise KeyError

    def test_the_second_interrupt_ends_the_process(self):
        with stop_signals(announce=False):
            assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL

    @pytest.mark.parametrize("name", ["SIGHUP", "SIGINT"])
    def test_ignored_signals_stay_ignored(self, name):
        number = getattr(signal, name)
        before = signal.signal(number, signal.SIG_IGN)
        try:
            with stop_signals(announce=False) as request:
                signal.raise_signal(number)
                assert request.signal is None
                signal.raise_signal(signal.SIGTERM)
                assert request.signal == "SIGTERM"
                assert signal.getsignal(number) is signal.SIG_IGN
        finally:
            signal.signal(number, before)

    def test_not_in_the_main_thread(self):
        def run() -> None:
            with stop_signals(announce=False) as request:
                found.append(request.signal)

        found: list[str | None] = []
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        assert found == [None]

    @pytest.mark.parametrize(("name", "how"), [("SIGINT", "a second Ctrl-C"), ("SIGTERM", "Ctrl-C")])
    def test_what_it_says(self, capfd, name, how):
        with stop_signals():
            signal.raise_signal(getattr(signal, name))
            signal.raise_signal(signal.SIGTERM)
        line = f"basicsr: {name}: the run will save and stop after the current iteration; {how} ends it at once\n"
        assert capfd.readouterr().err == line

    def test_a_forked_process_is_another(self, capfd):
        with stop_signals() as request:
            child = os.fork()
            if child == 0:
                signal.raise_signal(signal.SIGTERM)
                os._exit(0 if request.signal is None else 1)
            assert os.waitpid(child, 0)[1] == 0
            assert request.signal is None
            signal.raise_signal(signal.SIGUSR1)
            assert request.signal == "SIGUSR1"
        (line,) = capfd.readouterr().err.splitlines()
        assert "SIGUSR1" in line


class TestSecondInterrupt:
    @pytest.mark.parametrize(
        ("work", "codes"),
        [
            ("time.sleep(60)", {-signal.SIGINT, 128 + signal.SIGINT}),
            # A minute and more in C, where Python runs no handler.
            ("hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)", {128 + signal.SIGINT}),
        ],
        ids=["python", "c"],
    )
    def test_ends_at_once(self, work, codes):
        with subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(ALONE.format(work=work)), str(SOURCE)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                assert process.stdout.readline() == "ready\n"
                process.send_signal(signal.SIGINT)
                assert "the run will save and stop" in process.stderr.readline(), "announced during the iteration"
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=10) in codes
            finally:
                process.kill()
