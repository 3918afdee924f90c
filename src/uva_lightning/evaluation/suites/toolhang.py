"""Tool Hang as UVA counts (section 4.1)."""

from __future__ import annotations

from collections.abc import Sequence

from uva_lightning.evaluation.suite import Scenario, Suite

PAPER = {"DP-C": 0.95, "DP-T": 0.76, "OpenVLA": 0.18, "UniPi": 0.0, "UVA-action": 0.62, "UVA": 0.88}
OTHER = (
    "Published scores come from robomimic's branch of robosuite with other controllers and physics; success here, "
    "in robosuite 1.5, is not strictly comparable. UVA also plays the starts of 6 demonstrations."
)


class ToolHangSuite(Suite):
    """50 random starts, from seed 100000 on, 700 steps."""

    name = "toolhang"

    def scenarios(self) -> Sequence[Scenario]:
        """See the base class."""
        return [Scenario("toolhang", "toolhang", self.starts(), paper=PAPER, protocol=OTHER)]
