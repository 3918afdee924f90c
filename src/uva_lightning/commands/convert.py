"""``uva convert``: what a data set can become; a further format is one more entry.

The function of an entry is a command: it has typed arguments, ``data: RobotDataModule`` for any data set, writes to
``out`` and compares what it wrote with the source.
"""

TARGETS = {
    "lerobot": ("uva_lightning.datamodules.lerobot.convert:to_lerobot", "any data set as a LeRobot dataset v3.0"),
    "shards": ("uva_lightning.commands.convert_shards:to_shards", "any data set as tar shards, with its pictures"),
    "robot_episodes": (
        "uva_lightning.commands.convert_robot:robot_episodes",
        "recorded episodes of an arm, such as rollouts, as a LeRobot dataset v3.0",
    ),
    "libero_absolute": (
        "uva_lightning.commands.convert_libero:libero_absolute",
        "LIBERO's HDF5 with absolute actions in the place of relative ones",
    ),
}
