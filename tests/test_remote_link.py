"""Clocks of two machines are compared by what was quickest to go there and back."""

import pytest

from uva_lightning.robot.errors import ClockSkew
from uva_lightning.robot.remote_link import ClockComparison


def test_the_quickest_comparison_of_clocks_counts():
    clocks = ClockComparison()
    with pytest.raises(ClockSkew, match="inf ms"):
        clocks.check()
    clocks.add(0.0, 100.05, 0.1)
    clocks.add(1.0, 101.002, 1.002)
    clocks.add(2.0, 102.03, 2.1)
    assert clocks.offset == pytest.approx(100.001)
    assert clocks.error == pytest.approx(0.001)
    clocks.check()
    with pytest.raises(ClockSkew, match=r"moved against each other by \+0.100 s"):
        clocks.add(3.0, 103.1012, 3.0002)
    with pytest.raises(ClockSkew, match=r"moved against each other by \+0.100 s"):
        clocks.add(4.0, 104.1012, 4.0002)  # whoever catches it does not go on by the new clock
    with pytest.raises(ClockSkew, match="connect anew"):
        clocks.check()
    slow = ClockComparison()
    slow.add(0.0, 0.1, 0.1)
    with pytest.raises(ClockSkew, match="known to 50 ms"):
        slow.check()
