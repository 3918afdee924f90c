"""LIBERO-10: ten long tasks of a table-top arm, told by an instruction (UVA section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from uva_lightning.datamodules.demo_schema import LIBERO
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.hdf5 import FILE_NAME, DemoFields
from uva_lightning.datamodules.libero import LiberoData
from uva_lightning.datamodules.osc_actions import OscActions
from uva_lightning.types import DataSpec


class Libero10(LiberoData):
    """LIBERO-10 as UVA trains on it: one 128 px camera, 20 Hz, absolute actions, no proprioception.

    Reads HDF5 files, one or a folder with one per task, whose actions are absolute, and the replay buffer that UVA's
    code caches. LIBERO's own files have relative actions and are refused: convert them with ``uva convert
    libero_absolute``, or train on them as they are with ``Libero10Delta``. Options are those of ``LiberoData``.
    """

    facts: ClassVar[DataSpec] = DataSpec(
        cameras=("agentview",),
        image_size=128,
        action_dim=10,
        state_dims={},
        rate_hz=20,
        action_meaning="absolute target of the gripper: position in m, rotation-6d, gripper from -1 (open) to 1",
        conventions={
            "orientation": "upright (stored upside down, flipped top to bottom)",
            "rotation": "rotation-6d, first two rows of the matrix",
        },
    )
    fields: ClassVar[Mapping[str, Fields]] = {
        "hdf5": DemoFields(
            video={"agentview": "obs/agentview_rgb"},
            action="actions",
            state={},
            instructions=FILE_NAME,
            actions=OscActions(
                "absolute",
                hand="obs/ee_pos",
                fix="convert the files with 'uva convert libero_absolute', or train on the commands: Libero10Delta.",
            ),
            upside_down=True,
            schema=LIBERO,
        ),
        "replay_buffer": Fields(
            video={"agentview": "agentview_rgb"}, action="action", state={}, instructions="language"
        ),
    }
