"""Which proprioception the model sees."""

import pytest

from uva_lightning.datamodules.pusht import PushT
from uva_lightning.model.fitted import fit_together
from uva_lightning.proprioception import Proprioception


def test_an_unused_entry_is_no_modality(tiny_data, tiny_module):
    data = tiny_data()
    data.setup("fit")
    module = tiny_module(data.spec, proprioception=Proprioception(unused=["agent"]))
    assert "agent" not in module.transformer.streams
    batch = next(iter(data.train_dataloader()))
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], [batch])
    assert "agent" not in module.tokens(batch)
    assert module.losses(batch, 0)[1]


def test_an_entry_is_used_or_not():
    with pytest.raises(ValueError, match=r"\['agent'\] twice in streams and unused, expected each entry once"):
        Proprioception(streams={"proprio": ["agent"]}, unused=["agent"]).bind(PushT.facts)
    with pytest.raises(ValueError, match=r"names \['arm'\], but the data has \['agent'\]"):
        Proprioception(unused=["arm"]).bind(PushT.facts)
