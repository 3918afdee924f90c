"""``uva convert shards``: any data set becomes shards with its pictures, which are read as the data set was."""

from __future__ import annotations

import numpy as np

from uva_lightning.datamodules.pusht import PushT


def test_any_data_become_shards(uva, tiny_data, tmp_path):
    options = ("--data", "PushT", f"--data.path={tiny_data.path}", "--out", tmp_path / "shards")
    status, said, complaint = uva("convert", "shards", *options, "--shard_mb", 0.2)
    assert status == 0, complaint
    assert "shards: 2 shards, 6 episodes, 360 steps, 0." in said
    read = PushT(tmp_path / "shards").store
    np.testing.assert_array_equal(read.video["top"][np.arange(360)], tiny_data().store.video["top"])
    assert "workers is 0, expected more than 0" in uva("convert", "shards", *options, "--workers", 0)[2]
