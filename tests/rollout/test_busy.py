"""The busy time of a resource."""

import pytest

from apprentice.rollout import busy
from apprentice.rollout.busy import BusyTime


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(busy, "time", clock)
    return clock


def test_overlapping_blocks_count_once_and_gaps_do_not(clock):
    time, begin, end = BusyTime(), BusyTime.__enter__, BusyTime.__exit__
    for now, change in ((1, begin), (3, begin), (4, end), (7, end), (20, begin), (21, end)):
        clock.now = 100.0 + now
        change(time)
    clock.now = 200.0
    assert time.seconds == 7.0


def test_an_open_block_counts_until_now_and_an_error_closes_it(clock):
    time = BusyTime()
    with pytest.raises(KeyError), time:
        clock.now = 105.0
        assert time.seconds == 5.0
        raise KeyError
    clock.now = 110.0
    assert time.seconds == 5.0
