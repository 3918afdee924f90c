"""Block pushing: each block into each square (the columns of UVA section 4.5, here for any policy)."""

from __future__ import annotations

from collections.abc import Sequence

from uva_lightning.evaluation.suite import Scenario, Suite

CLASSES = ("rr", "rg", "gr", "gg")
PAPER = {
    "DP-C": (0.20, 0.50, 0.60, 0.20),
    "UVA-guided": (0.80, 0.70, 0.50, 0.40),
    "GT-Dynamics": (0.80, 0.80, 0.70, 0.70),
}
OTHER = "The paper's blocks are Diffusion Policy's in PyBullet; ours are a planar version with the physics of Push-T."


class BlockPushSuite(Suite):
    """The four goal classes R-R, R-G, G-R and G-G from the same starts."""

    name = "block_push"

    def scenarios(self) -> Sequence[Scenario]:
        """See the base class."""
        starts = self.starts()
        return [
            Scenario(
                f"block_push_{goal}",
                f"block_push_{goal}",
                starts,
                paper={method: scores[number] for method, scores in PAPER.items()},
                protocol=OTHER,
            )
            for number, goal in enumerate(CLASSES)
        ]
