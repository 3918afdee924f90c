"""Keep with every run what it was run with."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback

from uva_lightning.whole_files import whole


class RunRecord(SaveConfigCallback):
    """Write the whole configuration into the run folder and into every checkpoint (key ``config``, YAML text).

    Args:
        parser: Parser of the command.
        config: What it parsed.
    """

    filename = "config.yaml"

    def __init__(self, parser: LightningArgumentParser, config: Namespace) -> None:
        super().__init__(parser, config)
        self.text = parser.dump(config, skip_unset=False)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write ``config.yaml`` when training starts; an evaluation leaves the record of the run alone."""
        folder = trainer.log_dir  # on every rank: this broadcasts
        if stage == "fit" and trainer.is_global_zero and folder is not None:
            self._write(Path(folder) / self.filename)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put the configuration into the checkpoint, so that the file alone rebuilds the model."""
        checkpoint["config"] = self.text

    def _write(self, path: Path) -> None:
        with whole(path) as part:  # a reader never sees half a file
            part.write_text(self.text)
