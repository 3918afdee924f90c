"""The success head: what it learns from demonstrations, its file, and what it is as a reward."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from uva_lightning.commands.fit_reward import train_head
from uva_lightning.policy.imagination import Futures
from uva_lightning.policy.success import SuccessHead, SuccessNet, SuccessSpec, load, save

LENGTH = 24
SPEC = SuccessSpec("top", reach=8.0, side=32, width=8)


def picture(left, start):
    """A white square that comes from ``start`` to the middle, where the demonstration ends: u8[48, 48, 3]."""
    place = (20 + (start - 20) * left / LENGTH).round().astype(int)
    frame = np.full((48, 48, 3), 30, np.uint8)
    frame[place[0] : place[0] + 8, place[1] : place[1] + 8] = 255
    return frame


def demonstrations(count, seed):
    rng = np.random.default_rng(seed)
    left = np.tile(np.arange(LENGTH), count)
    starts = rng.uniform(0, 40, (count, 2)).repeat(LENGTH, axis=0)
    return np.stack([picture(*one) for one in zip(left, starts, strict=True)]), left


@pytest.fixture(scope="module")
def head():
    frames, left = demonstrations(30, 0)
    rng = np.random.default_rng(1)

    def batches():
        for _ in range(100):
            rows = rng.integers(0, len(frames), 24)
            yield torch.from_numpy(frames[rows]), torch.from_numpy(left[rows])

    return train_head(SPEC, batches(), 100, 3e-3, 0)


@pytest.fixture
def file(head, tmp_path):
    save(head, SPEC, tmp_path / "reward.safetensors")
    return tmp_path / "reward.safetensors"


def test_unseen_pictures_nearer_to_success_are_worth_more(file):
    frames, left = demonstrations(8, 5)
    reward = SuccessHead(file)
    assert reward.spec == SPEC
    found = reward({}, Futures({"top": frames[:, None, None]}))
    assert found.shape == (len(frames), 1)
    assert np.corrcoef(found[:, 0], np.exp(-left / SPEC.reach))[0, 1] > 0.9
    assert ((found > 0) & (found < 1)).all()
    blurred = frames.reshape(-1, 24, 2, 24, 2, 3).mean(axis=(2, 4)).repeat(2, axis=1).repeat(2, axis=2)
    blurry = reward({}, Futures({"top": blurred.astype(np.uint8)[:, None, None]}))
    assert np.corrcoef(found[:, 0], blurry[:, 0])[0, 1] > 0.9


def test_the_worth_of_a_future_is_the_mean_of_its_frames(file):
    frames, _ = demonstrations(2, 5)
    reward = SuccessHead(file)
    pairs = frames.reshape(4, 3, 4, 48, 48, 3)  # k, b, t
    single = reward({}, Futures({"top": frames[:, None, None]}))[:, 0]
    assert reward({}, Futures({"top": pairs})) == pytest.approx(single.reshape(4, 3, 4).mean(axis=-1), abs=1e-5)
    with pytest.raises(ValueError, match="camera is 'top', the futures show wrist"):
        reward({}, Futures({"wrist": pairs}))


def test_a_file_of_another_kind_is_refused(file, tmp_path):
    with pytest.raises(ValueError, match=r"no success head .*lost"):
        SuccessHead(tmp_path / "lost")
    text = tmp_path / "text"
    text.write_text("hello")
    with pytest.raises(ValueError, match="cannot be read"):
        load(text)
    save_file({"weight": torch.zeros(1)}, tmp_path / "other", {"format": "something"})
    with pytest.raises(ValueError, match="is something, expected uva_lightning success head 1"):
        load(tmp_path / "other")
    facts = {"format": "uva_lightning success head 1", "spec": json.dumps({"camera": "top", "reach": 8.0})}
    save_file({"weight": torch.zeros(1)}, tmp_path / "broken", facts)
    with pytest.raises(ValueError, match="lacks weights of its head"):
        load(tmp_path / "broken")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_seed_decides_the_weights():
    frames, left = (torch.from_numpy(x) for x in demonstrations(1, 0))
    first, second = (train_head(SPEC, iter([(frames, left)] * 2), 2, 1e-3, seed=3) for _ in range(2))
    other = train_head(SPEC, iter([(frames, left)] * 2), 2, 1e-3, seed=4)
    same = zip(first.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    assert not torch.equal(first.layers[0].weight, other.layers[0].weight)
    assert isinstance(first, SuccessNet)


def test_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="reach is 0"):
        SuccessSpec("top", 0)
    with pytest.raises(ValueError, match="side is 40"):
        SuccessSpec("top", 8, 40)


def test_the_command_writes_a_head_that_a_planner_takes(tiny_data, uva, tmp_path):
    out = tmp_path / "reward.safetensors"
    data = ("--data", "PushT", "--data.path", tiny_data.path, "--data.val_ratio", 0.2)
    status, said, _ = uva("fit-reward", *data, "--out", out, "--steps", 3, "--batch_size", 4)
    assert status == 0
    assert f"{out}: trained on 300 pictures of top; on 60 held-out ones" in said
    assert SuccessHead(out).spec == SuccessSpec("top", 32.0)
    status, _, complaint = uva("fit-reward", *data, "--out", out, "--camera", "wrist")
    assert (status, complaint.count("\n")) == (2, 1)
    assert "camera is 'wrist', the data have top" in complaint
