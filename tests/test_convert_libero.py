"""Relative commands of LIBERO become absolute actions, and nothing else changes."""

from __future__ import annotations

import importlib.util
import json

import numpy as np
import pytest

from uva_lightning.commands.convert_libero import libero_absolute
from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.osc_actions import ATTRIBUTE
from uva_lightning.envs.osc_goals import OscGoals, without_meshes

h5py = pytest.importorskip("h5py")

SCENE = """<mujoco><compiler angle="radian" meshdir="/nobody/has/these"/>
<asset><mesh name="bowl" file="bowl.stl"/><texture name="wood" type="2d" file="wood.png"/></asset>
<worldbody><geom type="plane" size="1 1 1" material="wood"/><body name="bowl"><freejoint name="bowl_joint"/>
<geom type="mesh" mesh="bowl" material="wood"/></body><body name="box"><freejoint/>
<geom type="box" size=".1 .1 .1" material="wood"/><geom type="mesh" mesh="bowl"/></body></worldbody></mujoco>"""


def write(path, change=None, actions=0.5):
    """A recording in LIBERO's schema whose scene nobody can replay; enough for what is refused before."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = "{}"
        demo = data.create_group("demo_0")
        demo["actions"], demo["states"] = np.full((4, 7), actions), np.zeros((4, 20))
        demo["obs/ee_pos"] = np.full((4, 3), 0.8)
        demo.attrs["model_file"] = SCENE
        if change is not None:
            change(data)
    return path


def test_scenes_lose_their_meshes_but_no_joint():
    scene = without_meshes(SCENE)
    assert "mesh=" not in scene
    assert "wood" not in scene
    assert scene.count("freejoint") == 2
    assert 'type="box"' in scene
    assert scene.count("<inertial") == 2
    with pytest.raises(ValueError, match="no XML .*expected a MuJoCo model"):
        without_meshes("<mujoco>")


def test_wrong_places_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"holds no .hdf5 files, expected LIBERO's"):
        libero_absolute(tmp_path, tmp_path / "out")
    write(tmp_path / "a.hdf5")
    for path in (tmp_path, tmp_path / "a.hdf5"):
        with pytest.raises(UserError, match="is the folder of the recordings, expected another one"):
            libero_absolute(path, tmp_path)
    (tmp_path / "out").mkdir()
    write(tmp_path / "out/a.hdf5")
    with pytest.raises(UserError, match=r"exists and was not converted from .*a.hdf5 as it is now"):
        libero_absolute(tmp_path, tmp_path / "out")


BAD = {
    "absolute": (lambda data: data["demo_0/actions"].__setitem__((..., slice(3)), 0.8), "demo_0 has absolute actions"),
    "stated": (lambda data: data.attrs.__setitem__(ATTRIBUTE, "absolute"), "has absolute actions already"),
    "nan": (lambda data: data["demo_0/states"].__setitem__((1, 2), np.nan), "demo_0 has NaN or infinity"),
    "states": (lambda data: data["demo_0"].__delitem__("states"), "demo_0 lacks states"),
    "model": (lambda data: data["demo_0"].attrs.__delitem__("model_file"), "demo_0 lacks attribute model_file"),
    "nothing": (lambda data: data.__delitem__("demo_0"), "has no demonstrations"),
}


@pytest.mark.parametrize("name", BAD)
def test_recordings_that_cannot_be_replayed_leave_nothing_behind(tmp_path, name):
    change, words = BAD[name]
    write(tmp_path / "a.hdf5", change)
    with pytest.raises(UserError, match=words):
        libero_absolute(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_file_that_is_cut_off(tmp_path):
    whole = write(tmp_path / "a.hdf5").read_bytes()
    (tmp_path / "a.hdf5").write_bytes(whole[:3000])
    with pytest.raises(UserError, match=r"a.hdf5 is no whole HDF5 file .*download it again"):
        libero_absolute(tmp_path, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


# What follows replays robosuite's own arm, in an environment that has the extra [libero].


@pytest.fixture(scope="module")
def robosuite():
    return pytest.importorskip("robosuite", reason="needs the extra [libero]")


def lift(robosuite, **options):
    controller = robosuite.load_controller_config(default_controller="OSC_POSE") | options
    return robosuite.make(
        "Lift", robots="Panda", controller_configs=controller, has_renderer=False, has_offscreen_renderer=False,
        use_camera_obs=False, control_freq=20, ignore_done=True,
    )  # fmt: skip


@pytest.fixture(scope="module")
def recorded(robosuite, tmp_path_factory):
    """Record Lift in LIBERO's schema: states before an action, observations after it, the first steps dropped."""
    env, rng = lift(robosuite), np.random.default_rng(0)
    path = tmp_path_factory.mktemp("lift") / "KITCHEN_lift_demo.hdf5"
    settings = {
        "control_freq": 20,
        "controller_configs": robosuite.load_controller_config(default_controller="OSC_POSE"),
    }
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "env_kwargs": settings})
        for number in range(2):
            env.reset()
            demo, rows = data.create_group(f"demo_{number}"), {"actions": [], "states": [], "obs/ee_pos": []}
            for step in range(45):
                if step % 8 == 0:
                    drawn = np.r_[rng.uniform(-1, 1, 6) * [1, 1, 1, 0.4, 0.4, 0.4], rng.choice([-1, 1])]
                action = drawn * np.r_[1, 1, 1, np.full(3, step % 16 < 12), 1]  # also commands that do not turn
                state = env.sim.get_state().flatten()
                seen = env.step(action)[0]
                for name, value in zip(rows, (action, state, seen["robot0_eef_pos"]), strict=True):
                    rows[name].append(value)
            for name, values in rows.items():
                demo[name] = np.array(values[5:])
            demo["obs/agentview_rgb"] = np.zeros((40, 8, 8, 3), np.uint8)
            demo.attrs["model_file"] = env.sim.model.get_xml()
    return path


def test_converted_actions_move_the_arm_as_the_commands_did(robosuite, recorded, tmp_path, capsys):
    libero_absolute(recorded, tmp_path / "out", step_every=4)
    told = capsys.readouterr().out.splitlines()[1].split()
    assert told[:3] == ["KITCHEN_lift_demo", "2", "80"]
    assert float(told[3]) < 2  # mm; observations are one simulator step older than the state
    assert float(told[4]) < 0.01
    relative, absolute = lift(robosuite), lift(robosuite, control_delta=False)
    with h5py.File(recorded) as old, h5py.File(tmp_path / "out" / recorded.name) as new:
        assert new["data"].attrs[ATTRIBUTE] == "absolute"
        assert not json.loads(new["data"].attrs["env_args"])["env_kwargs"]["controller_configs"]["control_delta"]
        for name in ("states", "obs/ee_pos", "obs/agentview_rgb"):
            np.testing.assert_array_equal(new[f"data/demo_1/{name}"], old[f"data/demo_1/{name}"])
        ends = {}
        for env, file in ((relative, old), (absolute, new)):
            demo = file["data/demo_1"]
            env.reset()
            env.reset_from_xml_string(demo.attrs["model_file"])
            controller, ends[env] = env.robots[0].controller, []
            for step, (state, action) in enumerate(zip(demo["states"][:], demo["actions"][:], strict=True)):
                env.sim.set_state_from_flattened(state)
                env.sim.forward()
                controller.update(force=True)
                if step == 0:
                    controller.reset_goal()
                ends[env].append(env.step(action)[0]["robot0_eef_pos"])
        apart = np.linalg.norm(np.subtract(ends[relative], ends[absolute]), axis=1)
        assert apart.max() < 1e-4  # m, in robosuite's own scene, with its meshes
        assert np.ptp(ends[relative], axis=0).max() > 0.05


def test_finished_files_are_kept_and_changed_ones_are_refused(robosuite, recorded, tmp_path, capsys):
    source = tmp_path / "raw" / recorded.name
    source.parent.mkdir()
    source.write_bytes(recorded.read_bytes())
    libero_absolute(source.parent, tmp_path / "out")
    written = (tmp_path / "out" / source.name).stat().st_mtime_ns
    libero_absolute(source.parent, tmp_path / "out")
    assert "0 files written" in capsys.readouterr().out
    assert (tmp_path / "out" / source.name).stat().st_mtime_ns == written
    with h5py.File(source, "r+") as file:
        file["data/demo_0/actions"][0, 0] = 0.1
    with pytest.raises(UserError, match="was not converted from"):
        libero_absolute(source.parent, tmp_path / "out")


def test_stepping_both_ways_finds_a_wrong_goal(robosuite, recorded):
    with h5py.File(recorded) as file:
        demo = file["data/demo_0"]
        goals = OscGoals(demo.attrs["model_file"], file["data"].attrs["env_args"])
        state, command = demo["states"][10], demo["actions"][10, :6]
    goal = goals.goal(state, command)
    assert goals.gap(state, command, goal) < 1e-5
    assert goals.gap(state, command, goal + [0.02, 0, 0, 0, 0, 0]) > 1e-3


def test_recordings_that_do_not_fit_together(robosuite, recorded, tmp_path):
    for name, change, words in (
        ("hand", lambda demo: demo["obs/ee_pos"].write_direct(demo["obs/ee_pos"][:] + 0.1), "do not belong together"),
        (
            "scene",
            lambda demo: demo.attrs.__setitem__("model_file", SCENE),
            "has no joint .*expected robosuite's Panda",
        ),
    ):
        file = tmp_path / f"{name}.hdf5"
        file.write_bytes(recorded.read_bytes())
        with h5py.File(file, "r+") as content:
            change(content["data/demo_1"])
        with pytest.raises(UserError, match=f"{name}.hdf5: demo_1.*{words}"):
            libero_absolute(file, tmp_path / "out")
    with pytest.raises(ValueError, match=r"is OSC_POSE with control_delta=False, expected"):
        OscGoals(SCENE, '{"env_kwargs": {"controller_configs": {"control_delta": false}}}')


@pytest.mark.skipif(importlib.util.find_spec("robosuite") is not None, reason="robosuite is installed")
def test_what_is_missing_is_named(tmp_path):
    write(tmp_path / "a.hdf5")
    with pytest.raises(ImportError, match=r"needs robosuite 1.4.0 .*'uva_lightning\[libero\]'"):
        libero_absolute(tmp_path, tmp_path / "out")
