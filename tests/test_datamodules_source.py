"""Data of one's own: the example of the documentation runs, and episodes unlike the facts are named."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.from_source import FromSource
from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.reading import Reading
from uva_lightning.datamodules.source import Episode, EpisodeSource, assemble
from uva_lightning.datamodules.windows import Window
from uva_lightning.types import DataSpec

ROOT = Path(__file__).resolve().parents[1]
STEPS = 40


def episode(number=0, **changes):
    rng = np.random.default_rng(number)
    frames = rng.integers(0, 256, (STEPS, 12, 16, 3), dtype=np.uint8)
    numbers = {"action": rng.normal(size=(STEPS, 3)), "state": {"eef": rng.normal(size=(STEPS, 2))}}
    return replace(Episode({"front": frames}, **numbers, instruction="go", name=f"take {number}"), **changes)


class Takes(EpisodeSource):
    facts = DataSpec(cameras=("front",), image_size=16, action_dim=3, state_dims={"eef": 2}, rate_hz=20)

    def __init__(self, *episodes: Episode) -> None:
        self.takes = episodes

    def episodes(self) -> Iterator[Episode]:
        yield from self.takes


@pytest.fixture
def example(tmp_path, monkeypatch):
    """Write the code and the config of the documentation, and recordings for them."""
    text = (ROOT / "docs/data.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "EpisodeSource" in block)
    config = next(block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "FromSource" in block)
    (tmp_path / "my_robot.py").write_text(code)
    monkeypatch.delitem(sys.modules, "my_robot", raising=False)  # of another test
    (tmp_path / "my_robot.yaml").write_text(config)
    rng = np.random.default_rng(0)
    for number in range(3):
        place = tmp_path / f"recordings/episode_{number}"
        place.mkdir(parents=True)
        np.save(place / "frames.npy", rng.integers(0, 256, (STEPS, 64, 64, 3), dtype=np.uint8))
        np.save(place / "action.npy", rng.normal(size=(STEPS, 3)))
        np.save(place / "agent.npy", rng.normal(size=(STEPS, 3)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_the_example_of_the_documentation_gives_batches(example):
    data = FromSource(importlib.import_module("my_robot").NpyFolders("recordings"), batch_size=4)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.video["front"].shape == (4, 8, 64, 64, 3)
    assert batch.action.shape == (4, 16, 3)
    assert batch.state["agent"].shape == (4, 4, 3)
    assert not any(isinstance(part, np.ndarray) and part.base is None for part in data.store.video["front"].parts)
    assert data.store.names == ["episode_0", "episode_1", "episode_2"]


@pytest.mark.slow
def test_the_example_of_the_documentation_trains(example, capsys):
    from uva_lightning.cli import main

    files = [ROOT / "configs/pusht.yaml", ROOT / "configs/sizes/smoke.yaml", "my_robot.yaml"]
    options = [part for file in files for part in ("--config", str(file))]
    assert (
        main(
            [
                "fit",
                *options,
                "--data.batch_size",
                "8",
                "--trainer.max_steps",
                "2",
                "--trainer.logger.init_args.save_dir",
                "runs",
            ]
        )
        == 0
    )
    assert list(Path("runs").rglob("last.ckpt"))


def test_pictures_take_the_size_of_the_facts_and_windows_are_right():
    data = FromSource(Takes(*map(episode, range(3))), 4, Window(2), text=RandomInstructions())
    data.setup("fit")
    assert data.spec.text_dim == 512
    store = data.store
    assert store.video["front"].shape == (3 * STEPS, 16, 16, 3)
    np.testing.assert_array_equal(store.action[STEPS : 2 * STEPS], episode(1).action.astype(np.float32))
    assert store.instructions == ["go"] * 3
    assert next(iter(data.val_dataloader())).video["front"].shape == (4, 4, 16, 16, 3)


def test_pictures_are_not_read_before_they_are_needed():
    class Film:
        shape, dtype, seen = (STEPS, 16, 16, 3), np.dtype(np.uint8), []

        def __len__(self):
            return STEPS

        def __getitem__(self, index):
            self.seen.append(index)
            return np.zeros((len(np.arange(STEPS)[index]), 16, 16, 3), np.uint8)

    data = FromSource(Takes(*(episode(number, video={"front": Film()}) for number in range(3))), batch_size=2)
    data.setup("fit")
    assert not Film.seen
    next(iter(data.train_dataloader()))
    assert sum(map(len, Film.seen)) == 2 * 8


WRONG = [
    ({"video": {"side": np.zeros((STEPS, 16, 16, 3), np.uint8)}}, r"has the cameras side, expected front as the facts"),
    ({"video": {"front": np.zeros((STEPS, 16, 16, 3))}}, r"has float64\[40, 16, 16, 3\] pictures of 'front', expected"),
    ({"video": {"front": np.zeros((STEPS, 16, 16), np.uint8)}}, r"has uint8\[40, 16, 16\] pictures of 'front'"),
    ({"video": {"front": np.zeros((0, 16, 16, 3), np.uint8)}}, "is empty, expected at least one step"),
    ({"action": np.zeros((STEPS, 2))}, r"has 'action' float64\[40, 2\], expected numbers \[40, 3\]"),
    ({"action": np.zeros((STEPS - 1, 3))}, r"has 'action' float64\[39, 3\], expected numbers \[40, 3\]"),
    ({"action": np.full((STEPS, 3), "x")}, r"has 'action' <U1\[40, 3\], expected numbers"),
    ({"action": np.full((STEPS, 3), np.nan)}, "has NaN or infinity in 'action', first at its step 0"),
    ({"action": None}, "lacks actions, unlike the first"),
    ({"instruction": None}, "lacks an instruction, unlike the first"),
    ({"state": {}}, "has the state entries none, expected eef"),
    ({"state": {"eef": np.zeros((STEPS, 5))}}, r"has 'eef' float64\[40, 5\], expected numbers \[40, 2\]"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_an_episode_unlike_the_facts_is_named_or_left_out(changes, message):
    source = Takes(episode(0), episode(1, **changes), episode(2))
    with pytest.raises(Broken, match=rf"Episode 1 of Takes \(take 1\) {message}.*on_error=skip"):
        assemble(source, Faults())
    faults = Faults("skip")
    assert assemble(source, faults).names == ["take 0", "take 2"]
    assert len(faults.found) == 1


def test_cameras_of_different_length_are_refused():
    class Two(Takes):
        facts = replace(Takes.facts, cameras=("front", "side"))

    front = episode().video["front"]
    with pytest.raises(Broken, match="has 39 pictures of 'side', expected 40 as of the first camera"):
        assemble(Two(episode(video={"front": front, "side": front[1:]})), Faults())


def test_a_source_without_facts_or_episodes_is_refused():
    class Bare(Takes):
        facts = None

    with pytest.raises(ValueError, match="facts of Bare are None, expected a DataSpec with at least one camera"):
        FromSource(Bare())
    with pytest.raises(Broken, match="Takes gave 0 episodes"):
        FromSource(Takes()).setup("fit")
    with pytest.raises(Broken, match="Takes gave 1 episodes, none of them whole"):
        FromSource(Takes(episode(action=np.zeros((2, 2)))), reading=Reading(on_error="skip")).setup("fit")
