from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

from fercache.errors import Stopped
from fercache.runtime import stop_signals, stops_at_once


@pytest.mark.parametrize("order", [("SIGUSR1", "SIGTERM"), ("SIGTERM", "SIGUSR1")])
def test_to_end_for_good_outweighs_to_end_for_a_while(order):
    with stop_signals() as stop:
        for name in order:
            os.kill(os.getpid(), getattr(signal, name))
    with pytest.raises(Stopped, match="SIGTERM") as caught:
        stop.check()
    assert caught.value.signal == "SIGTERM"


def test_short_work_stops_at_once_and_long_work_takes_over():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGUSR1"), stops_at_once():
        with stop_signals() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.signal == "SIGTERM"
        os.kill(os.getpid(), signal.SIGUSR1)
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_command_ends_with_its_own_status_at_a_signal(tmp_path):
    """Also one that has nothing to go on with; what it has finished is whole."""
    sets = ["--set", "train=60", "--set", "seconds=20"]
    command = [sys.executable, "-m", "fercache", "synth", "faces", *sets]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "faces").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == Stopped.EXIT_STATUS, said
    assert "Stopped by SIGTERM: what was finished is saved" in said and "Traceback" not in said
