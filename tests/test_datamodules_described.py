"""A dataset that the config describes reads what a datamodule written for it reads."""

from __future__ import annotations

import numpy as np
import pytest

from uva_lightning.datamodules.described import Described
from uva_lightning.datamodules.fields import Fields
from uva_lightning.datamodules.pusht import PushT


@pytest.fixture
def described(tiny_data):
    def make(**changes):
        data = tiny_data()
        fields = {"demos": Fields(video={"top": "frames"}, action="action", state={"agent": "agent"})}
        return Described(tiny_data.path, **{"spec": data.spec, "fields": fields, "val_ratio": 0.2, **changes})

    return make


def test_it_delivers_the_same_batches(tiny_data, described):
    data, own = tiny_data(batch_size=64), described()
    for module in (data, own):
        module.setup("fit")
    assert own.spec == data.spec
    one, other = next(iter(data.val_dataloader())), next(iter(own.val_dataloader()))
    assert one.action.equal(other.action)
    assert one.video["top"].equal(other.video["top"])
    assert one.state["agent"].equal(other.state["agent"])


def test_facts_that_the_data_contradicts_are_refused(tiny_data, described):
    from dataclasses import replace

    own = described(spec=replace(PushT.facts, image_size=128, frames=2))
    with pytest.raises(ValueError, match=r"is \[60, 96, 96, 3\], expected \[60, 128, 128, 3\]"):
        own.setup("fit")


def test_it_is_built_before_the_data_is_there(described, tmp_path):
    own = Described(tmp_path / "later", spec=described().spec, fields=described().fields)
    assert own.spec.action_dim == 2
    with pytest.raises(FileNotFoundError, match="There is no dataset at"):
        own.setup("fit")
    assert np.isclose(own.val_ratio, 0.02)
