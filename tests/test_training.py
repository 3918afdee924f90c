"""What a training command makes of its options before it builds anything."""

from pathlib import Path

import pytest
from jsonargparse import Namespace
from lightning.pytorch import Trainer

from uva_lightning.callbacks.requeue import resume_path
from uva_lightning.commands.errors import UserError
from uva_lightning.commands.training import UVACLI


def prepared(given):
    """Options of ``uva fit`` that name a checkpoint, as they are when everything is built."""
    cli = object.__new__(UVACLI)
    trainer = Namespace(accelerator="cpu")
    cli.config = Namespace(subcommand="fit", fit=Namespace(ckpt_path=given, trainer=trainer, weights_only=None))
    cli.before_instantiate_classes()
    return cli.config.fit


def test_a_checkpoint_may_be_parsed_as_a_path(tmp_path):
    """Which type of ``str | Path`` wins depends on what else has been imported."""
    (tmp_path / "some.ckpt").touch()
    for given in ("last", Path("last"), tmp_path / "some.ckpt", None):
        assert prepared(given).weights_only is True
    with pytest.raises(UserError, match="There is no checkpoint .*none.ckpt, expected a file that 'uva fit' wrote"):
        prepared(tmp_path / "none.ckpt")
    trainer = Trainer(logger=False, enable_checkpointing=False, default_root_dir=tmp_path)
    assert resume_path(trainer, Path("last")) == "last", "as Lightning knows it"
    assert resume_path(trainer, tmp_path / "some.ckpt") == str(tmp_path / "some.ckpt")
    assert resume_path(trainer, None) is None
