"""HDF5 of LIBERO and robomimic: what is read, how it is read, and what is refused."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from uva_lightning.datamodules import hdf5, hdf5_frames
from uva_lightning.datamodules.faults import Broken, Faults
from uva_lightning.datamodules.hdf5 import FILE_NAME, PROBLEM_INFO, DemoFields
from uva_lightning.types import DataSpec

h5py = pytest.importorskip("h5py")

FIELDS = DemoFields({"top": "obs/top_rgb"}, "actions", {"hand": "obs/ee_pos"}, instructions=FILE_NAME)
SPEC = DataSpec(("top",), image_size=8, action_dim=3, state_dims={"hand": 2}, rate_hz=20)
STEPS = 40


def write(path, demos=3, chunks=None, steps=STEPS, convention="opengl"):
    """Demonstrations whose pictures tell demonstration, step and row."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["problem_info"] = '{"language_instruction": ["put it", " down"]}'
        data.attrs["macros_image_convention"] = convention
        for number in range(demos):
            demo = data.create_group(f"demo_{number}")
            pictures = np.zeros((steps, 8, 8, 3), np.uint8)
            pictures[..., 0], pictures[..., 1] = number, np.arange(steps)[:, None, None]
            pictures[..., 2] = np.arange(8)[:, None]
            demo.create_dataset("obs/top_rgb", data=pictures, chunks=chunks and (chunks, 8, 8, 3))
            demo["obs/ee_pos"] = np.full((steps, 3), number + 0.5)
            demo["actions"] = np.arange(steps * 3.0).reshape(steps, 3) + number
    return path


def read(path, fields=FIELDS, on_error="stop"):
    faults = Faults(on_error)
    return hdf5.read(path, fields, SPEC, faults), faults


def test_files_by_name_and_demonstrations_by_number(tmp_path):
    for name, demos in (("B_two_demo.hdf5", 1), ("A_SCENE3_one_demo.hdf5", 12)):
        write(tmp_path / name, demos)
    (tmp_path / ".A_SCENE3_one_demo.hdf5.7.part").touch()
    (tmp_path / "notes.txt").touch()
    assert hdf5.matches(tmp_path)
    store, _ = read(tmp_path)
    assert list(store.names[:4]) == [f"A_SCENE3_one_demo.hdf5: demo_{number}" for number in range(4)]
    assert store.names[11:] == ["A_SCENE3_one_demo.hdf5: demo_11", "B_two_demo.hdf5: demo_0"]
    assert store.instructions[10:] == ["A SCENE3 one", "A SCENE3 one", "B two"]
    assert store.lengths.tolist() == [STEPS] * 13
    np.testing.assert_array_equal(store.video["top"][:][::STEPS, 0, 0, 0], [*range(12), 0])
    np.testing.assert_array_equal(store.action[2 * STEPS], [2, 3, 4])
    np.testing.assert_array_equal(store.state["hand"][3 * STEPS], [3.5, 3.5])  # as many columns as the facts say
    assert read(tmp_path, replace(FIELDS, instructions=PROBLEM_INFO))[0].instructions[0] == "put it down"
    assert read(tmp_path, replace(FIELDS, instructions=None))[0].instructions is None


@pytest.mark.parametrize("chunks", [None, 1, 16])
def test_any_index_reads_what_is_stored(tmp_path, chunks):
    write(tmp_path / "a.hdf5", chunks=chunks)
    frames = read(tmp_path)[0].video["top"]
    whole = frames[:]
    assert whole.shape == frames.shape == (3 * STEPS, 8, 8, 3)
    rng = np.random.default_rng(0)
    for index in (rng.integers(0, 3 * STEPS, 50), slice(30, 95, 7), slice(5, 5), np.array([79, 80, 3, 3, 0])):
        np.testing.assert_array_equal(frames[index], whole[index])
    with pytest.raises(IndexError, match="expected 0 to 119"):
        frames[np.array([0, 120])]


def test_reads_follow_runs_and_chunks():
    def runs(steps, chunk):
        return [(rows.start, rows.stop) for rows in hdf5_frames._runs(np.array(steps), chunk)]

    assert runs([3, 4, 5, 9, 10], 1) == [(0, 3), (3, 5)]
    assert runs([3, 7, 11, 15, 19, 23], 16) == [(0, 4), (4, 6)]  # each chunk is unpacked once
    assert runs([3, 15, 16, 40], 16) == [(0, 3), (3, 4)]


def test_pictures_are_turned_unless_the_file_says_that_they_are_upright(tmp_path):
    write(tmp_path / "a.hdf5", 1)
    write(tmp_path / "b.hdf5", 1, convention="opencv")
    frames = read(tmp_path, replace(FIELDS, upside_down=True))[0].video["top"]
    assert frames[:1][0, :, 0, 2].tolist() == list(range(7, -1, -1))
    assert frames[STEPS : STEPS + 1][0, :, 0, 2].tolist() == list(range(8))
    assert read(tmp_path)[0].video["top"][:1][0, :, 0, 2].tolist() == list(range(8))


def test_files_stay_closed_beyond_a_bound_and_objects_travel(tmp_path, monkeypatch):
    for number in range(6):
        write(tmp_path / f"{number}.hdf5", 1)
    monkeypatch.setattr(hdf5_frames, "MOST_OPEN", 2)
    hdf5_frames._FILES.clear()
    frames = read(tmp_path)[0].video["top"]
    whole = frames[:]
    assert len(hdf5_frames._FILES) == 2
    sent = pickle.dumps(frames)
    assert len(sent) < 2000
    np.testing.assert_array_equal(pickle.loads(sent)[np.arange(0, 240, 9)], whole[::9])


def test_identity_follows_the_files(tmp_path):
    write(tmp_path / "a.hdf5")
    before = read(tmp_path)[0].identity
    assert read(tmp_path)[0].identity == before
    write(tmp_path / "a.hdf5", 2)
    assert read(tmp_path)[0].identity != before


def damage(name, make):
    """Give a function that damages demo_1 of a file."""

    def change(path):
        with h5py.File(path, "r+") as file:
            make(file["data/demo_1"])

    return pytest.param(change, id=name)


def put(demo, name, values):
    del demo[name]
    demo[name] = values


BAD = [
    (damage("camera", lambda demo: demo.__delitem__("obs/top_rgb")), r"lacks obs/top_rgb: found actions, obs/ee_pos"),
    (damage("actions", lambda demo: demo.__delitem__("actions")), "lacks actions: found obs/ee_pos, obs/top_rgb"),
    (damage("length", lambda demo: put(demo, "actions", np.zeros((39, 3)))), r"lengths \(actions 39, obs/ee_pos 40"),
    (
        damage("nan", lambda demo: demo["actions"].__setitem__((7, 1), np.nan)),
        "NaN .* 'actions' at 1 .*first at 7",
    ),
    (damage("state", lambda demo: demo["obs/ee_pos"].__setitem__((3, 0), np.inf)), "'obs/ee_pos' at 1 steps"),
    (damage("narrow", lambda demo: put(demo, "obs/ee_pos", np.zeros((40, 1)))), "has 1 columns, expected 2"),
    (damage("float", lambda demo: put(demo, "obs/top_rgb", np.zeros((40, 8, 8, 3)))), r"float64\[40, 8, 8, 3\]"),
    (
        damage("size", lambda demo: put(demo, "obs/top_rgb", np.zeros((40, 9, 9, 3), np.uint8))),
        r"pictures of .*9, 9.*, a.hdf5: demo_0 has .*8, 8",
    ),
    (
        damage(
            "empty",
            lambda demo: [put(demo, name, demo[name][:0]) for name in ("actions", "obs/top_rgb", "obs/ee_pos")],
        ),
        "is empty",
    ),
]


@pytest.mark.parametrize(("change", "words"), [pytest.param(*p.values, w, id=p.id) for p, w in BAD])
def test_a_broken_demonstration_stops_or_is_left_out(tmp_path, change, words):
    write(tmp_path / "a.hdf5")
    change(tmp_path / "a.hdf5")
    with pytest.raises(Broken, match=f"a.hdf5: demo_1 .*{words}"):
        read(tmp_path)
    store, faults = read(tmp_path, on_error="skip")
    assert store.names == ["a.hdf5: demo_0", "a.hdf5: demo_2"]
    assert store.video["top"][STEPS : STEPS + 1][0, 0, 0, 0] == 2
    assert len(faults.found) == 1


def test_a_broken_file_stops_or_is_left_out(tmp_path):
    whole = write(tmp_path / "b.hdf5", 2).read_bytes()
    (tmp_path / "a.hdf5").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Broken, match=r"a.hdf5 is no whole HDF5 file .*truncated.*download it again"):
        read(tmp_path)
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        file["numbers"] = [1]
    store, faults = read(tmp_path, on_error="skip")
    assert store.names == ["b.hdf5: demo_0", "b.hdf5: demo_1"]
    assert [str(fault).split()[0].rpartition("/")[2] for fault in faults.found] == ["a.hdf5", "c.hdf5"]
    assert r"holds numbers), expected data/demo_0" in str(faults.found[1])
    (tmp_path / "b.hdf5").unlink()
    with pytest.raises(Broken, match="2 broken episodes were left out, 0 are whole"):
        read(tmp_path, on_error="skip")


def test_pictures_that_went_bad_later_are_named(tmp_path):
    frames = read(write(tmp_path / "a.hdf5"))[0].video["top"]
    hdf5_frames._FILES.clear()
    (tmp_path / "a.hdf5").write_bytes(b"no longer")
    with pytest.raises(Broken, match=r"a.hdf5: '/data/demo_1/obs/top_rgb' cannot be read in steps 0 to 3"):
        frames[STEPS : STEPS + 4]


def test_an_instruction_that_is_not_there(tmp_path):
    write(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "a.hdf5", "r+") as file:
        file["data"].attrs["problem_info"] = "{}"
    with pytest.raises(Broken, match=r"no language_instruction in the attribute 'problem_info'.*file_name"):
        read(tmp_path, replace(FIELDS, instructions=PROBLEM_INFO))
