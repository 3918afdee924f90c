"""LeRobot datasets: v2.x (a table and a video per episode) and v3.0 (many episodes in each), read and written."""

from uva_lightning.datamodules.lerobot.reading import matches, read

__all__ = ["matches", "read"]
