"""What batches hold beyond frames and actions: past actions, future proprioception, instructions, varied histories."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.instructions import CachedInstructions, RandomInstructions
from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec

EPISODES, STEPS = 5, 50


class Arm(RobotDataModule):
    """Numbers that tell their step, and two tasks."""

    facts = DataSpec(
        cameras=("front", "wrist"),
        image_size=4,
        action_dim=1,
        state_dims={"joints": 2},
        rate_hz=10,
        conventions={"orientation": "upright"},
    )
    tasks = ["open the drawer", "close it", "open the drawer", "close it", "wave"]

    def read(self):
        count = np.arange(EPISODES * STEPS)
        pictures = np.broadcast_to((count % 256).astype(np.uint8)[:, None, None, None], (len(count), 4, 4, 3)).copy()
        state = np.stack([count, -count], axis=1).astype(np.float32)
        return EpisodeStore(
            {"wrist": pictures, "front": 255 - pictures},
            count[:, None].astype(np.float32),
            {"joints": state},
            np.arange(STEPS, len(count) + 1, STEPS),
            self.tasks,
        )


def ready(**options):
    data = Arm("unused", batch_size=8, **options)
    data.setup("fit")
    return data


def first(data):
    return next(iter(data.train_dataloader()))


def test_everything_at_its_step():
    data = ready(window=Window(past_action=True, state_steps=16), text=RandomInstructions())
    batch = first(data)
    begin = batch.action[:, 0, 0]
    inside = batch.past_action[:, 0, 0] == begin - 16  # windows that touch no edge
    steps = begin[inside, None] + torch.arange(16)
    assert inside.any()
    assert batch.state["joints"][inside, :, 0].equal(steps - 15)
    assert batch.future_state["joints"].shape == (8, 16, 2)
    assert batch.future_state["joints"][inside, 0, 0].equal(begin[inside] + 1)
    assert list(batch.video) == ["front", "wrist"]
    assert {name: flags.tolist() for name, flags in batch.present.items()} == dict.fromkeys(
        ("video", "wrist", "action", "joints", "past_action", "text"), [True] * 8
    )


def test_instructions_are_those_of_the_episode():
    data = ready(text=RandomInstructions())
    assert data.spec.text_dim == 512
    batch = first(data)
    episodes = (batch.action[:, 0, 0] // STEPS).long().tolist()
    expected = RandomInstructions().embed([Arm.tasks[episode] for episode in episodes])
    assert batch.text.equal(expected)
    assert 0.9 < float(expected.std()) < 1.1
    assert not expected[0].equal(RandomInstructions().embed(["another"])[0])
    part = data.store.select([4, 1])
    assert part.instructions == ["wave", "close it"]


def test_without_an_embedder_there_is_no_text():
    data = ready()
    assert (data.spec.text_dim, first(data).text) == (0, None)


def test_cached_instructions(tmp_path):
    path, vectors = tmp_path / "text.safetensors", torch.randn(3, 512)
    sentences = sorted(set(Arm.tasks))
    save_file(dict(zip(sentences, vectors, strict=True)), path)
    assert CachedInstructions(path).embed(["wave", "close it"]).equal(vectors[[2, 0]])
    save_file({"embeddings": vectors}, path, {"instructions": json.dumps(sentences)})
    assert CachedInstructions(path).embed(["wave", "close it"]).equal(vectors[[2, 0]])
    with pytest.raises(
        ValueError, match=r"has no vector for 'dance' \(1 of 2 are missing\); set data\.text\.init_args\.weights"
    ):
        CachedInstructions(path).embed(["dance", "wave"])
    with pytest.raises(ValueError, match="There is no file .*set data.text.init_args.weights"):
        CachedInstructions(tmp_path / "none").embed(["wave"])
    lenient = CachedInstructions(path, missing=RandomInstructions()).embed(["dance", "wave"])
    assert lenient.equal(torch.cat([RandomInstructions().embed(["dance"]), vectors[[2]]]))
    assert CachedInstructions(tmp_path / "none", RandomInstructions()).embed(["dance"]).equal(lenient[:1])
    save_file({"wave": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"vectors of \[3\] numbers, expected \[512\]"):
        CachedInstructions(path).embed(["wave"])
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        CachedInstructions(path).embed(["wave"])


def test_text_without_instructions_is_refused():
    class Silent(Arm):
        def read(self):
            store = super().read()
            return EpisodeStore(store.video, store.action, store.state, store.ends)

    data = Silent("here", text=RandomInstructions())
    with pytest.raises(ValueError, match="data.text is RandomInstructions, but here has no instructions"):
        data.setup("fit")
    with pytest.raises(ValueError, match="1 instructions for 5 episodes, expected one each"):
        EpisodeStore({}, np.zeros((50, 1), np.float32), {}, np.arange(10, 51, 10), ["one"])


@pytest.mark.parametrize("how", ["sample", "batch"])
def test_varied_history_in_training_only(how):
    data = ready(window=Window(vary_history=how))
    batch = first(data)
    shown = batch.state["joints"][..., 0] - batch.action[:, :1, 0] + 15  # relative to the window
    assert shown[:, -1].eq(15).all()
    inside = (batch.action[:, 0, 0] % STEPS >= 15) & (batch.action[:, 0, 0] % STEPS < 34)
    assert (len(shown[inside].unique(dim=0)) == 1) is (how == "batch")
    assert (255 - batch.video["front"][:, :4, 0, 0, 0] == batch.state["joints"][..., 0] % 256).all()
    assert first(ready(window=Window(vary_history=how))).state["joints"].equal(batch.state["joints"])
    even = next(iter(data.val_dataloader())).state["joints"][7, :, 0]
    assert even.diff().tolist() == [4, 4, 4]


def test_conventions_are_told_and_part_of_the_contract(caplog):
    data = Arm("unused", window=Window(shift_action=False))
    assert data.spec.conventions == {"orientation": "upright", "chunk": "begins one step after the last past frame"}
    with caplog.at_level("INFO"):
        data.setup("fit")
    assert "orientation: upright." in caplog.text
