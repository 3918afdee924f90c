"""Demonstrations of block pushing: recorded, read, mirrored."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

pytest.importorskip("gymnasium")
pytest.importorskip("pymunk")
pytest.importorskip("cv2")

from uva_lightning.datamodules.block_push import BlockPush, BlockPushMirror
from uva_lightning.datamodules.generate import ScriptedDemos
from uva_lightning.datamodules.windows import Window
from uva_lightning.demos import Recipe, play
from uva_lightning.envs.block_push import BlockPush as Game


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    maker = ScriptedDemos("block_push", episodes=3)
    folder = tmp_path_factory.mktemp("demos") / "block_push"
    data = BlockPush(folder, batch_size=4, window=Window(2), symmetry=BlockPushMirror(), generate=maker)
    data.prepare_data()
    data.setup("fit")
    return data


def test_an_episode_replays():
    episode = play(Recipe("block_push", 0, 100), 1)
    assert {name: value.shape[1:] for name, value in episode.items()} == {
        "action": (2,),
        "agent": (2,),
        "blocks": (2, 3),
        "reward": (),
        "frames": (96, 96, 3),
        "seed": (),
    }
    game = Game()
    observation, info = game.reset(seed=int(episode["seed"]))
    for step, action in enumerate(episode["action"]):  # frames and positions precede the action of the same step
        np.testing.assert_array_equal(game.render(), episode["frames"][step])
        np.testing.assert_array_equal(observation["agent"], episode["agent"][step])
        np.testing.assert_allclose(info["blocks"], episode["blocks"][step], rtol=1e-6)
        observation, _, solved, _, info = game.step(action)
    assert solved


def test_demonstrations_become_batches(data):
    batch = next(iter(data.train_dataloader()))
    assert batch.action.shape == (4, 16, 2)
    assert batch.video["top"].shape == (4, 4, 96, 96, 3)
    assert batch.state["agent"].shape == (4, 2, 2)


def test_the_mirror_maps_an_episode_onto_one_that_could_have_been_played(data):
    """Mirrored actions from the mirrored start, with the colours exchanged, give mirrored pictures."""
    mirror, plain, other = BlockPushMirror(), Game(), Game()
    _, info = plain.reset(seed=5)
    blocks = info["blocks"]
    agent = plain.world.agent_position
    swapped = [(512 - x, y, -angle) for x, y, angle in blocks[::-1]]
    other.reset(options={"state": (512 - agent[0], agent[1], *np.ravel(swapped))})
    for target in islice(plain.demonstrate(100, 1), 40):
        plain.step(np.float32(target))
        other.step(mirror.action(torch.tensor(target, dtype=torch.float32)).numpy())
    shown = mirror.frames(torch.from_numpy(plain.render())).numpy().astype(int)
    assert np.abs(shown - other.render()).mean() < 1.5  # lines are drawn to the nearest pixel of 512
    seen = mirror.state("agent", torch.tensor(plain.world.agent_position)).numpy()
    assert seen == pytest.approx(other.world.agent_position, abs=0.5)
    frames = torch.randint(0, 256, (2, 8, 8, 3), dtype=torch.uint8)
    assert torch.equal(mirror.frames(mirror.frames(frames)), frames)
