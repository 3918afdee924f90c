"""``uva fit | validate | test | predict``: Lightning's command line with our model and data in it."""

import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from lightning.fabric.plugins import ClusterEnvironment, TorchCheckpointIO
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning_utilities.core.rank_zero import rank_zero_only

from uva_lightning.callbacks.prediction_file import PredictionFile
from uva_lightning.callbacks.rank_watch import RankWatch
from uva_lightning.callbacks.requeue import Requeue, Stopped, leave, resume_path
from uva_lightning.callbacks.run_record import RunRecord
from uva_lightning.callbacks.set_shares import SetShares
from uva_lightning.checkpoint_files import WholeCheckpoints
from uva_lightning.commands.configs import (
    read_config,
    refuse_empty_unknown,
    resolve_configs,
)
from uva_lightning.commands.discovery import import_components
from uva_lightning.commands.errors import UserError, message
from uva_lightning.commands.merge import merge_configs
from uva_lightning.commands.parser import ShortErrors

SEED = 42
CHOSEN_BY_LIGHTNING = ("best", "hpc", "last", "registry")
"""Words that may stand for a checkpoint."""


class TrainingParser(ShortErrors, LightningArgumentParser):
    """Lightning's parser with short errors."""


class UVACLI(LightningCLI):
    """Build model, data and trainer from YAML and run one of the trainer's verbs."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the sizes flow from the data to the model."""
        parser.link_arguments("data", "model.spec", compute_fn=_spec, apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then look for what jsonargparse lets pass."""
        super().parse_arguments(parser, args)
        config = self.config[self.config.subcommand] if "subcommand" in self.config else self.config
        for path in config.get("config") or []:
            refuse_empty_unknown(read_config(Path(str(path))), config)

    def before_instantiate_classes(self) -> None:
        """Unpickle nothing but tensors and plain values, and look for the checkpoint before any data are read.

        Raises:
            UserError: There is no such checkpoint, or no such accelerator.
        """
        config = self.config.get(self.config.get("subcommand"), self.config)
        given = str(config.get("ckpt_path") or "")
        if given and given not in CHOSEN_BY_LIGHTNING and "://" not in given and not Path(given).exists():
            raise UserError(f"There is no checkpoint {given}, expected a file that 'uva fit' wrote; set --ckpt_path.")
        if "weights_only" in config:
            config["weights_only"] = True
        _check_accelerator(str(config.trainer.accelerator))

    def instantiate_classes(self) -> None:
        """Build everything; what a constructor refuses is the user's to mend."""
        try:
            super().instantiate_classes()
        except (ValueError, LookupError, OSError, ImportError, MisconfigurationException) as error:
            raise UserError(cast(TrainingParser, self.parser).shorten(message(error))) from error
        for callback in self.trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback.save_on_exception = True  # Ctrl-C or a crash must not cost the work since the last checkpoint

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Build the trainer with what every run has; objects in ``trainer_defaults`` would not fit into the record."""
        config = self.config_init.get(self.config_init.get("subcommand"), self.config_init)["trainer"]
        callbacks, plugins = ([*_listed(config.get(key))] for key in ("callbacks", "plugins"))
        callbacks += [own for own in (Requeue(), RankWatch()) if not any(isinstance(c, type(own)) for c in callbacks)]
        in_slurm = SLURMEnvironment.detect() and not TorchElasticEnvironment.detect()
        if in_slurm and not any(isinstance(plugin, ClusterEnvironment) for plugin in plugins):
            plugins.append(SLURMEnvironment(auto_requeue=False))  # Requeue does it, without a deadlock
        trainer = super().instantiate_trainer(**{**kwargs, "callbacks": callbacks, "plugins": plugins or None})
        if type(trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            trainer.strategy.checkpoint_io = WholeCheckpoints()
        return trainer

    def fit(self, **kwargs: Any) -> None:
        """Train; after Ctrl-C say where the checkpoint is."""
        start = time.time()
        try:
            self.trainer.fit(**{**kwargs, "ckpt_path": resume_path(self.trainer, kwargs.get("ckpt_path"))})
        except Stopped as stopped:
            config = Path(self.trainer.log_dir or ".") / RunRecord.filename
            raise SystemExit(leave(stopped, f"uva fit --config {config} --ckpt_path {stopped.path}")) from None
        except SystemExit:
            rank_zero_only(self._tell_checkpoint)(start)
            raise

    def _tell_checkpoint(self, start: float) -> None:
        """Name the newest checkpoint written since ``start``, in seconds since the epoch."""
        folders = {Path(folder) for c in self.trainer.checkpoint_callbacks if (folder := getattr(c, "dirpath", None))}
        written = [(path.stat().st_mtime, path) for folder in folders for path in folder.glob("*.ckpt")]
        seconds, newest = max(written, default=(0.0, None))
        if seconds < start:
            sys.stderr.write("uva: interrupted before the first checkpoint; there is nothing to go on from.\n")
            return
        config = Path(self.trainer.log_dir or ".") / RunRecord.filename
        sys.stderr.write(
            f"uva: interrupted at step {self.trainer.global_step}; the checkpoint is {newest}\n"
            f"uva: go on with: uva fit --config {config} --ckpt_path {newest}\n"
        )


class ConfigReader(UVACLI):
    """Parse what a training command takes, and build nothing."""

    def before_instantiate_classes(self) -> None:
        """Leave everything as it is."""

    def instantiate_classes(self) -> None:
        """Keep the whole configuration as YAML text."""
        self.text: str = self.parser.dump(self.config, skip_unset=False)


def read_training(argv: Sequence[str]) -> dict[str, Any]:
    """Give the whole configuration that the options of ``uva fit`` mean, with every default.

    Args:
        argv: Command line without the program's name and ``fit``.
    """
    from uva_lightning.datamodules.training_data import TrainingData
    from uva_lightning.module import UVAModule

    TrainingParser.left_out = import_components()
    arguments = merge_configs(["", *resolve_configs(argv)])[1:]
    reader = ConfigReader(UVAModule, TrainingData, args=arguments, run=False, **_cli_options("uva"))
    content: dict[str, Any] = yaml.safe_load(reader.text)
    return content


def run(argv: Sequence[str]) -> int:
    """Run a training command.

    Args:
        argv: Command line without the program's name, ``fit --config ...``.

    Returns:
        Exit status.
    """
    # Lightning starts the other ranks of a node from sys.argv, so they need the resolved configs too.
    sys.argv[1:] = merge_configs(resolve_configs(argv))
    TrainingParser.left_out = import_components()
    from uva_lightning.datamodules.training_data import TrainingData
    from uva_lightning.module import UVAModule

    launch(UVAModule, TrainingData)
    return 0


def launch(model: type[LightningModule], data: type[LightningDataModule]) -> None:
    """Run the command in ``sys.argv``.

    Args:
        model: The one model class.
        data: Base of the data classes that a config may name; each has a ``spec``.

    Raises:
        KeyboardInterrupt: Ctrl-C; a checkpoint is written and named.
        UserError: The configuration cannot work.
    """
    try:
        UVACLI(model, data, save_config_callback=RunRecord, **_cli_options("uva"))
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning turns Ctrl-C into status 1
            raise KeyboardInterrupt from stop
        raise


def build(argv: Sequence[str], prog: str) -> UVACLI:
    """Build model, data and trainer of an experiment, and run nothing.

    Args:
        argv: Options of ``uva fit``, with resolved configs.
        prog: How the command is called, for messages.

    Raises:
        UserError: The configuration cannot work.
    """
    TrainingParser.left_out = import_components()
    from uva_lightning.datamodules.training_data import TrainingData
    from uva_lightning.module import UVAModule

    with warnings.catch_warnings():  # the other ranks of a node repeat sys.argv, which stays
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        return UVACLI(
            UVAModule, TrainingData, save_config_callback=None, args=list(argv), run=False, **_cli_options(prog)
        )


def _cli_options(prog: str) -> dict[str, Any]:
    return {
        "trainer_defaults": {"use_distributed_sampler": False, "callbacks": [PredictionFile(), SetShares()]},
        "seed_everything_default": SEED,
        "parser_class": TrainingParser,
        "parser_kwargs": {"prog": prog, "allow_abbrev": False},
        "subclass_mode_data": True,
        "auto_configure_optimizers": False,
    }


def _check_accelerator(name: str) -> None:
    """Refuse a GPU where there is none, before any work.

    Raises:
        UserError: There is none.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    there["gpu"] = any(there.values())
    if not there.get(name, True):
        raise UserError(
            f"trainer.accelerator is {name}, but torch {torch.__version__} sees no such device; set "
            "--trainer.accelerator=cpu, or install a torch built for it ('uva doctor' shows what there is)."
        )


def _spec(data: Any) -> Any:
    return data.spec


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]
