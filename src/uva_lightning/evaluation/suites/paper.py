"""All of the paper's evaluation that runs here with one checkpoint, and what each missing part would need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from uva_lightning.evaluation.suite import Scenario, Suite
from uva_lightning.evaluation.suites.pusht import PushTSuite


class PaperSuite(Suite):
    """The scenarios of UVA's tables that this package can play."""

    name = "paper"
    held_out: ClassVar[bool] = True

    def scenarios(self) -> Sequence[Scenario]:
        """See the base class."""
        return PushTSuite(self.episodes, self.seed).scenarios()

    def missing(self) -> Mapping[str, str]:
        """See the base class."""
        return {
            "LIBERO-10 (4.1)": "it needs a checkpoint of LIBERO-10: uva env install libero, then uva eval --suite "
            "libero_10.",
            "Tool Hang (4.1)": "it needs a checkpoint of Tool Hang: uva env install toolhang, then uva eval --suite "
            "toolhang.",
            "UMI on the robot (4.2)": "it needs an ARX X5 and a person who judges: see docs/hardware.md.",
            "Published video quality (4.4)": "it needs a checkpoint of LIBERO-10 or UMI, and I3D's weights in "
            "--play.held.i3d; what this one foresees is measured on held-out windows.",
            "Planning in block pushing (4.5)": "it needs a checkpoint of block pushing: uva eval --suite block_push "
            "--play.actors Planner plays policy and planner, uva bench planning also the bound in the true simulator.",
            "Inverse dynamics against motion capture (4.6)": "it needs UMI recordings with motion capture, which "
            "are not published; what this one explains is measured on held-out windows.",
            "Action-free human video (4.7)": "it needs two checkpoints of LIBERO-10, see configs/human_video.yaml.",
        }
