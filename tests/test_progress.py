"""How far a long piece of work is, told off a terminal."""

import time

import pytest

from diffusion.progress import duration, progress


@pytest.mark.parametrize("seconds, words", [(0.4, "0s"), (59.6, "1m00s"), (95, "1m35s"), (3700, "1h01m")])
def test_durations_are_short(seconds, words):
    assert duration(seconds) == words


def test_off_a_terminal_a_line_now_and_then_tells_how_much_is_left(caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr("sys.stderr.isatty", lambda: False)
    with progress(100, "samples", every=0.01) as update:
        update(10)
        time.sleep(0.02)
        update(15)
        update(75)
    assert [line.partition(",")[0] for line in caplog.messages] == ["samples: 25 of 100"]
