"""Any LeRobot dataset is trained from by its path alone."""

import json
import sys

import numpy as np
import pytest

pytest.importorskip("av")
pytest.importorskip("pyarrow")

from films import numbers_of
from lerobot_sets import CAMERA, LENGTHS, TASKS, numbers, write_set
from uva_lightning.cli import main
from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.lerobot_dataset import LeRobot
from uva_lightning.datamodules.reading import Reading
from uva_lightning.datamodules.windows import Window


def edit(path, change):
    file = path / "meta/info.json"
    info = json.loads(file.read_text())
    change(info["features"])
    file.write_text(json.dumps(info))


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_facts_are_those_of_the_dataset(tmp_path, version):
    data = LeRobot(write_set(tmp_path / "set", version, width=26, rate=30), image_size=32)
    spec = data.spec
    assert (spec.cameras, spec.image_size, spec.rate_hz) == (("top",), 32, 30)
    assert (spec.action_dim, spec.state_dims) == (26, {"state": 26})
    assert spec.action_meaning.startswith("joint_0.pos, joint_1.pos, ")
    assert spec.conventions["recorded as"] == f"LeRobot {version}, robot so101"


def test_batches_have_square_pictures_and_instructions(tmp_path):
    window = Window(pad=(8, 8))
    data = LeRobot(
        write_set(tmp_path / "set"), 32, batch_size=4, window=window, val_ratio=0.3, text=RandomInstructions()
    )
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch.video["top"].shape == (4, 8, 32, 32, 3)
    assert batch.action.shape == (4, 16, 5)
    assert batch.state["state"].shape == (4, 4, 5)
    assert batch.text.shape == (4, 512)
    assert data.store.instructions == [TASKS[0], TASKS[1], TASKS[0]]


def test_workers_read_the_same_as_one_process(tmp_path):
    path = write_set(tmp_path / "set")

    def first(workers):
        data = LeRobot(path, 32, batch_size=4, window=Window(pad=(8, 8)), reading=Reading(workers=workers))
        data.setup("fit")
        data.store.video["top"][:3]  # files are open before the fork
        return next(iter(data.train_dataloader()))

    one, two = first(0), first(2)
    assert (one.video["top"] == two.video["top"]).all()
    assert (one.action == two.action).all()


def test_some_episodes_need_only_their_own_files(tmp_path):
    path = write_set(tmp_path / "set")
    for file in path.rglob("episode_000000.*"):
        file.unlink()
    store = LeRobot(path, reading=Reading(episodes=[1, 2])).store
    np.testing.assert_array_equal(store.action, numbers()[0][LENGTHS[0] :])
    for file in path.rglob("episode_000002.*"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match="lacks 2 of its 4 files: .*episode_000000"):
        LeRobot(path, reading=Reading(episodes=2)).store  # noqa: B018


def test_cameras_and_states_are_chosen(tmp_path):
    path = write_set(tmp_path / "set")

    def more(features):
        features["observation.images.wrist.left"] = features[CAMERA]
        features["observation.images.depth"] = {**features[CAMERA], "info": {"video.is_depth_map": True}}
        features["observation.top"] = {"dtype": "float32", "shape": [2, 3], "names": None}
        features["observation.note"] = {"dtype": "string", "shape": [1], "names": None}

    edit(path, more)
    spec = LeRobot(path).spec
    assert spec.cameras == ("top", "wrist_left")
    assert spec.state_dims == {"state": 5, "top_numbers": 6}
    spec = LeRobot(path, cameras=["wrist_left", CAMERA], states=["state"]).spec
    assert (spec.cameras, spec.state_dims) == (("wrist_left", "top"), {"state": 5})
    store = LeRobot(path, cameras=["top"], states=[]).store
    assert (list(store.video), store.state) == (["top"], {})
    with pytest.raises(ValueError, match=r"data\.cameras names side, but .*set has top, wrist_left; correct it"):
        LeRobot(path, cameras=["side"])


@pytest.mark.parametrize(
    ("names", "meaning"),
    [
        (["x", "y"], "x, y"),
        ({"motors": ["a", "b"]}, "a, b"),
        ({"axes": "x"}, "x"),
        (None, "as recorded, in the recorder's units"),
    ],
)
def test_what_an_action_means(tmp_path, names, meaning):
    path = write_set(tmp_path / "set")
    edit(path, lambda features: features["action"].update(names=names))
    assert LeRobot(path).spec.action_meaning == meaning


def test_what_cannot_be_used(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no LeRobot dataset at .*set \(no folder there\).*set data\.path"):
        LeRobot(tmp_path / "set")
    path = write_set(tmp_path / "set")
    with pytest.raises(ValueError, match="image_size is 0, expected pixels"):
        LeRobot(path, 0)
    edit(path, lambda features: features.pop(CAMERA))
    with pytest.raises(ValueError, match="has no camera, only action, observation.state"):
        LeRobot(path)


def test_pictures_are_those_of_the_step(tmp_path):
    store = LeRobot(write_set(tmp_path / "set"), 48).store
    np.testing.assert_array_equal(numbers_of(store.video["top"][40:44]), [40, 41, 42, 43])


@pytest.mark.slow
def test_a_recording_is_trained_from_as_it_is(tmp_path, monkeypatch):
    """26 joints, 480 x 640 px, AV1, v2.1, laid over a shipped experiment."""
    monkeypatch.setattr(sys, "argv", ["uva"])
    film = {"codec": "libsvtav1", "gop": 2, "options": {"preset": "12"}}
    path = write_set(tmp_path / "set", lengths=(34, 36), width=26, size=(480, 640), rate=30, film=film)
    configs = [f"--config={name}" for name in ("pusht", "options/lerobot", "sizes/smoke")]
    options = [f"--data.path={path}", "--data.image_size=64", "--data.text=null", "--trainer.max_steps=2"]
    assert main(["fit", *configs, *options, f"--trainer.logger.init_args.save_dir={tmp_path / 'runs'}"]) == 0
    assert list(tmp_path.glob("runs/**/last.ckpt"))
