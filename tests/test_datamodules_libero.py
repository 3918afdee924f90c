"""LIBERO and Tool Hang as HDF5: what actions mean, instructions, orientation, and training on them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from uva_lightning.cli import main
from uva_lightning.datamodules.fields import Range
from uva_lightning.datamodules.generate import RandomEpisodes
from uva_lightning.datamodules.instructions import RandomInstructions
from uva_lightning.datamodules.libero import LiberoFiles
from uva_lightning.datamodules.libero10 import Libero10
from uva_lightning.datamodules.libero10_delta import Libero10Delta
from uva_lightning.datamodules.osc_actions import ATTRIBUTE, guess, to_ten
from uva_lightning.datamodules.reading import Reading
from uva_lightning.datamodules.toolhang import ToolHang
from uva_lightning.rotations import from_axis_angle

h5py = pytest.importorskip("h5py")

MAKER = RandomEpisodes(episodes=2, steps=30, layout="hdf5")
FILE = "KITCHEN_SCENE3_turn_on_the_stove_demo.hdf5"


@pytest.fixture(scope="module")
def absolute(tmp_path_factory):
    path = tmp_path_factory.mktemp("libero") / "absolute"
    MAKER(path, Libero10(path))
    return path


@pytest.fixture(scope="module")
def delta(tmp_path_factory):
    path = tmp_path_factory.mktemp("libero") / "delta"
    MAKER(path, Libero10Delta(path))
    return path


def test_made_up_files_have_the_schema_of_libero(delta):
    assert sorted(file.name for file in delta.iterdir()) == [
        FILE,
        "LIVING_ROOM_SCENE2_put_the_box_in_the_basket_demo.hdf5",
    ]
    with h5py.File(delta / FILE) as file:
        data = file["data"]
        assert set(data.attrs) == {
            "env_name", "problem_info", "macros_image_convention", "bddl_file_name", "bddl_file_content", "env_args",
            "num_demos", "total",
        }  # fmt: skip
        assert (data.attrs["num_demos"], data.attrs["total"]) == (2, 60)
        assert json.loads(data.attrs["env_args"])["env_kwargs"]["controller_configs"]["control_delta"]
        assert json.loads(data.attrs["problem_info"])["language_instruction"] == "kitchen scene3 turn on the stove"
        demo = data["demo_1"]
        assert set(demo.attrs) == {"num_samples", "model_file", "init_state"}
        found = {}
        demo.visititems(
            lambda name, it: found.update({name: (it.shape, it.dtype.str[1:])}) if hasattr(it, "shape") else None
        )
        assert found == {
            "actions": ((30, 7), "f8"),
            "obs/agentview_rgb": ((30, 128, 128, 3), "u1"),
            "obs/eye_in_hand_rgb": ((30, 128, 128, 3), "u1"),
            "obs/ee_pos": ((30, 3), "f8"),
            "obs/ee_ori": ((30, 3), "f8"),
            "obs/ee_states": ((30, 6), "f8"),
            "obs/gripper_states": ((30, 2), "f8"),
            "obs/joint_states": ((30, 7), "f8"),
            "states": ((30, 123), "f8"),
            "robot_states": ((30, 9), "f8"),
            "rewards": ((30,), "u1"),
            "dones": ((30,), "u1"),
        }
        assert demo["dones"][:].tolist() == [0] * 29 + [1]
        np.testing.assert_array_equal(demo["obs/ee_states"][:, :3], demo["obs/ee_pos"])
        assert set(np.unique(demo["actions"][:, 6])) <= {-1, 1}


def test_absolute_actions_become_ten_numbers(absolute):
    store = Libero10(absolute, text=RandomInstructions()).store
    with h5py.File(absolute / FILE) as file:
        raw, pictures = file["data/demo_1/actions"][:], file["data/demo_1/obs/agentview_rgb"][:]
    rows = slice(30, 60)
    np.testing.assert_allclose(store.action[rows, :3], raw[:, :3], atol=1e-6)
    turn = from_axis_angle(torch.from_numpy(raw[:, 3:6])).numpy()
    np.testing.assert_allclose(store.action[rows, 3:6], turn[:, 0], atol=1e-6)  # rows, not columns
    np.testing.assert_allclose(store.action[rows, 6:9], turn[:, 1], atol=1e-6)
    np.testing.assert_array_equal(store.action[rows, 9], raw[:, 6])
    np.testing.assert_array_equal(store.video["agentview"][rows], pictures[:, ::-1])
    assert store.instructions[0] == "KITCHEN SCENE3 turn on the stove"
    assert Libero10(absolute).store.instructions is None  # nobody asked


def test_one_file_is_a_data_set_and_the_sentence_may_come_from_the_problem(absolute):
    files = LiberoFiles(instruction="problem_info")
    store = Libero10(absolute / FILE, text=RandomInstructions(), files=files).store
    assert store.names == [f"{FILE}: demo_0", f"{FILE}: demo_1"]
    assert store.instructions == ["kitchen scene3 turn on the stove"] * 2


def test_relative_actions_are_never_taken_for_absolute_ones(absolute, delta):
    words = rf"{FILE}: demo_0 has delta actions .* from the hand.*expected absolute ones; convert .*libero_absolute"
    for on_error in ("stop", "skip"):
        with pytest.raises(ValueError, match=words):
            Libero10(delta, reading=Reading(on_error=on_error)).setup("fit")
    with pytest.raises(ValueError, match="has absolute actions .* expected delta ones; read these files with Libero10"):
        Libero10Delta(absolute).setup("fit")


def test_relative_actions_have_their_own_facts(delta):
    data = Libero10Delta(delta, batch_size=4)
    data.setup("fit")
    assert data.spec.action_dim == 7
    assert "relative command" in data.spec.action_meaning
    with h5py.File(delta / FILE) as file:
        np.testing.assert_allclose(data.store.action[:30], file["data/demo_0/actions"][:], atol=1e-6)


def rewrite(path, source, change):
    with h5py.File(path, "w") as file, h5py.File(source) as other:
        other.copy("data", file)
        change(file["data"])
    return path


def test_what_converted_files_say_counts(tmp_path, delta):
    """Without the hand the numbers show nothing; the attribute does, and contradicts a wrong data set."""

    def without_hand(data):
        for demo in data.values():
            del demo["obs/ee_pos"]

    file = rewrite(tmp_path / "a.hdf5", delta / FILE, without_hand)
    with pytest.raises(ValueError, match=r"does not show whether .*data.files.check_actions=false"):
        Libero10(file).setup("fit")
    assert Libero10(file, files=LiberoFiles(check_actions=False)).store.action.shape == (60, 10)
    file = rewrite(tmp_path / "b.hdf5", file, lambda data: data.attrs.__setitem__(ATTRIBUTE, "absolute"))
    assert Libero10(file).store.action.shape == (60, 10)
    with pytest.raises(ValueError, match="has absolute actions"):
        Libero10Delta(file, files=LiberoFiles(check_actions=False)).setup("fit")


def test_numbers_show_what_actions_are():
    rng = np.random.default_rng(0)
    hand = RandomEpisodes(2, 50).walks(rng, 3, Range(-0.3, 1.2))
    commands = rng.uniform(-1, 1, (100, 7))
    targets = commands.copy()
    targets[:, :3] = hand + 0.05 * commands[:, :3]
    assert guess(commands, hand) == "delta"
    assert guess(targets, hand) == "absolute"
    assert guess(targets, None) == "absolute"  # beyond 1 m
    assert guess(commands, None) is None
    assert guess(3 * commands, hand) is None
    assert guess(np.zeros((100, 7)), hand + 0.5) == "delta"  # a robot that rests


def test_a_half_turn_keeps_its_axis():
    ten = to_ten(np.array([[0, 0, 0, np.pi, 0, 0, 1.0], [0, 0, 0, 0, 0, 0, -1]]))
    np.testing.assert_allclose(ten[0, 3:], [1, 0, 0, 0, -1, 0, 1], atol=1e-6)
    np.testing.assert_allclose(ten[1, 3:], [1, 0, 0, 0, 1, 0, -1], atol=1e-6)


def test_pictures_follow_their_action_unless_shifted(absolute):
    stored = Libero10(absolute)
    shifted = Libero10(absolute, files=LiberoFiles(alignment="shifted"))
    assert "what action j has led to, as LIBERO stores it" in stored.spec.conventions["alignment"]
    assert "before action j" in shifted.spec.conventions["alignment"]
    for begin, end in zip(stored.store.begins, stored.store.ends, strict=True):
        np.testing.assert_array_equal(shifted.store.action[begin : end - 1], stored.store.action[begin + 1 : end])
        np.testing.assert_array_equal(shifted.store.action[end - 1], stored.store.action[end - 1])
    with pytest.raises(ValueError, match=r"alignment is 'late', expected as_stored or shifted; set data.files"):
        LiberoFiles(alignment="late")


def test_a_demonstration_of_another_width_is_named(tmp_path, absolute):
    def narrow(data):
        del data["demo_1/actions"]
        data["demo_1/actions"] = np.zeros((30, 6))

    file = rewrite(tmp_path / "a.hdf5", absolute / FILE, narrow)
    with pytest.raises(ValueError, match=r"a.hdf5: demo_1 has actions \[30, 6\], expected \[n, 7\]"):
        Libero10(file).setup("fit")
    data = Libero10(file, reading=Reading(on_error="skip"))
    with pytest.warns(UserWarning, match="1 broken episodes were left out, 1 are whole"):
        assert data.store.episodes == 1


def test_tool_hang(tmp_path):
    path = tmp_path / "image_abs.hdf5"
    data = ToolHang(path, batch_size=4, generate=RandomEpisodes(2, 12, layout="hdf5"))
    data.prepare_data()
    store = data.store
    with h5py.File(path) as file:
        demo = file["data/demo_1"]
        assert "model_file" in demo.attrs
        assert set(file["data"].attrs) == {"env_args", "num_demos", "total"}
        np.testing.assert_array_equal(store.video["wrist"][12:], demo["obs/robot0_eye_in_hand_image"][:])
        np.testing.assert_array_equal(store.video["sideview"][12:], demo["obs/sideview_image"][:])  # upright as stored
        np.testing.assert_allclose(store.action[12:, :3], demo["actions"][:, :3], atol=1e-6)
        np.testing.assert_allclose(store.state["eef_quat"][12:], demo["obs/robot0_eef_quat"][:], atol=1e-6)
    assert {name: values.shape[1] for name, values in store.state.items()} == data.spec.state_dims
    rules = replace(ToolHang.fields["hdf5"].actions, meaning="delta")
    with h5py.File(path) as file, pytest.raises(ValueError, match="image_abs"):
        rules(file["data/demo_0"], "image.hdf5: demo_0")


def test_layouts_are_named(tmp_path):
    with pytest.raises(ValueError, match="Libero10Delta does not say how it looks as replay_buffer.*which has hdf5"):
        RandomEpisodes()(tmp_path / "x", Libero10Delta(tmp_path / "x"))
    (tmp_path / "x").mkdir()
    with pytest.raises(ValueError, match="expected one of: robomimic's or LIBERO's HDF5.*; Diffusion Policy"):
        Libero10(tmp_path / "x").setup("fit")


@pytest.mark.slow
def test_workers_read_the_same_pictures(absolute):
    """Forked workers must not share the open files of their parent."""
    batches = []
    for workers in (0, 2):
        data = Libero10(absolute, batch_size=4, reading=Reading(workers=workers))
        data.setup("fit")
        assert data.store.video["agentview"][:1].any()  # the parent has the file open
        loader = data.train_dataloader()
        batches.append([batch.video["agentview"] for batch, _ in zip(loader, range(3), strict=False)])
    assert all(one.equal(other) for one, other in zip(*batches, strict=True))


def fit(data, folder, steps, *options):
    configs = ["--config", "configs/libero10.yaml", "--config", "configs/sizes/smoke.yaml"]
    argv = ["fit", *configs, f"--data.path={data}", f"--trainer.max_steps={steps}", "--trainer.limit_val_batches=0"]
    argv += [f"--trainer.logger.init_args.save_dir={folder}", "--model.sampler.init_args.stages.video.steps=1"]
    argv += ["--model.optimizer.init_args.total_steps=100"]  # the rate must not depend on where a run stops
    assert main([*argv, *options]) == 0
    (file,) = folder.glob("**/last.ckpt")
    return file


@pytest.mark.slow
def test_training_from_files_resumes_exactly(tmp_path):
    """Four steps equal two and two more, on files of LIBERO's schema, with instructions."""
    pytest.importorskip("tensorboard")
    data = tmp_path / "libero"
    generate = ("--data.generate=RandomEpisodes", "--data.generate.layout=hdf5", "--data.generate.steps=40")
    whole = torch.load(fit(data, tmp_path / "whole", 4, *generate))
    half = fit(data, tmp_path / "half", 2)
    resumed = torch.load(fit(data, tmp_path / "resumed", 4, f"--ckpt_path={half}"))
    assert whole["global_step"] == resumed["global_step"] == 4
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, resumed["state_dict"][name]), name
    first = torch.load(half)["state_dict"]
    assert any(not torch.equal(weights, first[name]) for name, weights in whole["state_dict"].items())
    assert any("text" in name for name in first)


@pytest.mark.slow
def test_training_on_relative_commands(tmp_path):
    options = ("--data=Libero10Delta", f"--data.path={tmp_path / 'delta'}", "--model.actions.normalizer=Identity")
    generate = ("--data.generate=RandomEpisodes", "--data.generate.layout=hdf5", "--data.text=RandomInstructions")
    assert torch.load(fit(tmp_path / "delta", tmp_path / "run", 2, *options, *generate))["global_step"] == 2
