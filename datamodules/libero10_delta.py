"""LIBERO-10 as it is published: relative commands instead of UVA's absolute actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from uva_lightning.datamodules.demo_schema import LIBERO
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.hdf5 import FILE_NAME, DemoFields
from uva_lightning.datamodules.libero import LiberoData
from uva_lightning.datamodules.libero10 import Libero10
from uva_lightning.datamodules.osc_actions import OscActions
from uva_lightning.types import DataSpec


class Libero10Delta(LiberoData):
    """LIBERO's own HDF5 files with the commands that were recorded; a model of it is none of UVA's.

    Actions lie in [-1, 1] already: set ``model.actions.init_args.normalizer=Identity`` in the config of LIBERO-10.
    """

    facts: ClassVar[DataSpec] = replace(
        Libero10.facts,
        action_dim=7,
        action_meaning="relative command of the OSC controller in [-1, 1]: position by 0.05 m, axis-angle by 0.5 rad, "
        "gripper from -1 (open) to 1",
        conventions={**Libero10.facts.conventions, "rotation": "axis-angle, relative, in units of 0.5 rad"},
    )
    fields: ClassVar[Mapping[str, Fields]] = {
        "hdf5": DemoFields(
            video={"agentview": "obs/agentview_rgb"},
            action="actions",
            state={},
            instructions=FILE_NAME,
            actions=OscActions("delta", hand="obs/ee_pos", fix="read these files with Libero10."),
            upside_down=True,
            schema=LIBERO,
        ),
    }
