"""LeRobot datasets of both versions become the same episodes, and each kind of damage is named."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("av")
arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

from films import SIDE, numbered, numbers_of, write_film  # noqa: E402
from lerobot_sets import CAMERA, JOINTS, LENGTHS, TASKS, numbers, write_set  # noqa: E402
from uva_lightning.datamodules.faults import Broken, Faults  # noqa: E402
from uva_lightning.datamodules.fields import Fields  # noqa: E402
from uva_lightning.datamodules.lerobot import read  # noqa: E402
from uva_lightning.datamodules.pusht import PushT  # noqa: E402
from uva_lightning.types import DataSpec  # noqa: E402

FIELDS = Fields({"top": CAMERA}, "action", {"state": "observation.state"})
SPEC = DataSpec(("top",), SIDE[0], JOINTS, {"state": JOINTS}, 10)
ENDS = np.cumsum(LENGTHS)
SHARED = Path(os.environ.get("UVA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
ZARR = SHARED / "data/pusht/pusht_cchi_v7_replay_u8.zarr.zip"
REAL = SHARED / "data/lerobot_pusht_v30"
KINDS = [("v2.1", "video"), ("v2.1", "image"), ("v3.0", "video"), ("v3.0", "image")]


def skipping(path, only=None):
    faults = Faults("skip")
    return read(path, FIELDS, SPEC, faults, only), [str(fault) for fault in faults.found]


@pytest.mark.parametrize(("version", "kind"), KINDS)
def test_both_versions_with_films_and_with_images(tmp_path, version, kind):
    store = read(write_set(tmp_path / "set", version, kind), FIELDS, SPEC, Faults())
    action, state = numbers()
    np.testing.assert_array_equal(store.action, action)
    np.testing.assert_array_equal(store.state["state"], state)
    np.testing.assert_array_equal(store.ends, ENDS)
    assert store.instructions == [TASKS[0], TASKS[1], TASKS[0]]
    assert store.names[2] == "set: episode 2"
    frames = pickle.loads(pickle.dumps(store.video["top"]))
    assert frames.shape == (sum(LENGTHS), *SIDE, 3)
    expected = numbers_of(numbered(sum(LENGTHS)))
    wanted = np.random.default_rng(0).integers(0, sum(LENGTHS), 30)
    np.testing.assert_array_equal(numbers_of(frames[wanted]), expected[wanted])
    np.testing.assert_array_equal(numbers_of(frames[25:45]), expected[25:45])


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_some_episodes_need_only_their_own_files(tmp_path, version):
    path = write_set(tmp_path / "set", version)
    whole = read(path, FIELDS, SPEC, Faults())
    first = sorted(path.glob("data/*/*.parquet"))[0]
    first.unlink()
    store = read(path, FIELDS, SPEC, Faults(), only=[2])
    np.testing.assert_array_equal(store.action, whole.action[ENDS[1] :])
    np.testing.assert_array_equal(numbers_of(store.video["top"][:3]), numbers_of(numbered(3, first=int(ENDS[1]))))
    assert store.identity != whole.identity
    with pytest.raises(ValueError, match="has no episode 7, expected numbers from 0 to 2"):
        read(path, FIELDS, SPEC, Faults(), only=[7, 1])


@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_missing_files_are_counted_and_named(tmp_path, version):
    path = write_set(tmp_path / "set", version)
    tables, films = sorted(path.glob("data/*/*.parquet")), sorted(path.glob("videos/**/*.mp4"))
    tables[-1].unlink()
    films[-1].unlink()
    total = len(tables) + len(films)
    names = rf"lacks 2 of its {total} files: {tables[-1].relative_to(path)}, {films[-1].relative_to(path)}; copy"
    with pytest.raises(FileNotFoundError, match=names):
        read(path, FIELDS, SPEC, Faults())
    if version == "v2.1":
        store, faults = skipping(path)
        np.testing.assert_array_equal(store.ends, ENDS[:2])
        assert len(faults) == 1
        assert faults[0].startswith("set: episode 2 lacks data/chunk-000/episode_000002.parquet, videos/")


def test_a_film_of_another_length(tmp_path):
    path = write_set(tmp_path / "set")
    file = path / f"videos/chunk-000/{CAMERA}/episode_000001.mp4"
    for count, fault in ((31, "has 31 frames"), (41 + 5, "has 46 frames")):
        write_film(file, numbered(count))
        with pytest.raises(Broken, match=rf"set: episode 1: .*episode_000001\.mp4 {fault}, but its table has 41 rows"):
            read(path, FIELDS, SPEC, Faults())
    store, faults = skipping(path)
    np.testing.assert_array_equal(store.action, np.delete(numbers()[0], np.arange(ENDS[0], ENDS[1]), axis=0))
    assert len(faults) == 1
    write_film(file, numbered(42))  # some encoders repeat the last frame
    assert read(path, FIELDS, SPEC, Faults()).episodes == 3


def test_a_shared_film_that_is_too_short(tmp_path):
    path = write_set(tmp_path / "set", "v3.0")
    write_film(path / f"videos/{CAMERA}/chunk-000/file-000.mp4", numbered(100))
    with pytest.raises(Broken, match=r"episode 2: .* has 29 frames from 7\.10 s on, but its table has 36 rows"):
        read(path, FIELDS, SPEC, Faults())
    assert skipping(path)[0].episodes == 2


def test_a_film_that_is_cut_off(tmp_path):
    path = write_set(tmp_path / "set", film={"container": {"movflags": "faststart"}})
    file = path / f"videos/chunk-000/{CAMERA}/episode_000000.mp4"
    file.write_bytes(file.read_bytes()[:-600])
    with pytest.raises(Broken, match=r"set: episode 0: .*episode_000000\.mp4 is cut off after \d+ of 30 frames"):
        read(path, FIELDS, SPEC, Faults())
    file.write_bytes(file.read_bytes()[:200])
    store, faults = skipping(path)
    assert store.episodes == 2
    assert "has no pictures, expected a video; copy it again" in faults[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"timestamp": lambda v: np.asarray(v) / 3}, r"timestamp in .* leaves 10 Hz, .* at its row 1 \(30 Hz"),
        ({"action": lambda v: [*v[:5], [np.nan] * JOINTS, *v[6:]]}, r"'action' .* 1 steps with NaN.* at its step 5,"),
        (
            {"action": lambda v: [*v[:5], v[5][:2], *v[6:]]},
            "1 steps with .*another width than 5, .* step 5",
        ),
        ({"action": lambda v: [*v[:5], None, *v[6:]]}, "'action' .* 1 steps with NaN, infinity or another width"),
        ({"action": lambda v: ["left"] * len(v)}, "'action' in .* holds string, expected numbers"),
        ({"episode_index": lambda v: [*v[:-4], 9, 9, 9, 9]}, "has 37 rows of it, but the list in meta/ says 41"),
        ({"task_index": lambda v: [5] * len(v)}, r"has the task 5, but meta/ lists \[0, 1\]"),
    ],
)
def test_a_table_that_does_not_fit(tmp_path, change, words):
    path = write_set(tmp_path / "set")
    file = path / "data/chunk-000/episode_000001.parquet"
    content = parquet.read_table(file).to_pydict()
    for column, edit in change.items():
        content[column] = list(edit(content[column]))
    parquet.write_table(arrow.table(content), file)
    with pytest.raises(Broken, match=f"set: episode 1.*{words}"):
        read(path, FIELDS, SPEC, Faults())
    store, faults = skipping(path)
    assert (store.episodes, len(faults)) == (2, 1)


def test_a_damaged_table(tmp_path):
    path = write_set(tmp_path / "set")
    file = path / "data/chunk-000/episode_000001.parquet"
    file.write_bytes(file.read_bytes()[:500])
    with pytest.raises(Broken, match=r"episode 1: .*episode_000001\.parquet is damaged \(.*\); copy it again"):
        read(path, FIELDS, SPEC, Faults())


def test_a_damaged_image(tmp_path):
    path = write_set(tmp_path / "set", kind="image")
    file = path / "data/chunk-000/episode_000001.parquet"
    table = parquet.read_table(file)
    cells = table[CAMERA].to_pylist()
    cells[3]["bytes"] = cells[3]["bytes"][:40]
    place = table.schema.get_field_index(CAMERA)
    parquet.write_table(table.set_column(place, CAMERA, arrow.array(cells, table.schema.field(place).type)), file)
    frames = read(path, FIELDS, SPEC, Faults()).video["top"]
    frames[:33]
    with pytest.raises(Broken, match=r"set: episode 1: row 3 of .*episode_000001\.parquet: "):
        frames[30:35]


def test_images_may_lie_in_files_of_their_own(tmp_path):
    path = write_set(tmp_path / "set", kind="image", lengths=(20, 20))
    for file in path.glob("data/*/*.parquet"):
        table = parquet.read_table(file)
        cells = table[CAMERA].to_pylist()
        for cell in cells:
            cell["path"] = f"images/{file.stem}/{cell['path']}"
            (path / cell["path"]).parent.mkdir(parents=True, exist_ok=True)
            (path / cell["path"]).write_bytes(cell["bytes"])
            cell["bytes"] = None
        place = table.schema.get_field_index(CAMERA)
        parquet.write_table(table.set_column(place, CAMERA, arrow.array(cells, table.schema.field(place).type)), file)
    frames = read(path, FIELDS, SPEC, Faults()).video["top"]
    np.testing.assert_array_equal(numbers_of(frames[:]), np.arange(40))


def test_an_empty_episode(tmp_path):
    path = write_set(tmp_path / "set")
    listed = path / "meta/episodes.jsonl"
    listed.write_text(listed.read_text() + json.dumps({"episode_index": 3, "tasks": [], "length": 0}) + "\n")
    with pytest.raises(Broken, match="set: episode 3 has 0 steps; leave it out"):
        read(path, FIELDS, SPEC, Faults())
    assert skipping(path)[0].episodes == 3
    for file in path.glob("data/*/*.parquet"):
        file.unlink()
    with pytest.raises(Broken, match="4 broken episodes were left out, 0 are whole"):
        skipping(path)


def test_mixed_rates(tmp_path):
    path = write_set(tmp_path / "set", film={"rate": 30})
    with pytest.raises(Broken, match=r"episode 0: .*\.mp4 runs at 30 Hz, but meta/info\.json says 10 fps"):
        read(path, FIELDS, SPEC, Faults())
    with pytest.raises(ValueError, match="is recorded at 10 Hz, expected 20 Hz"):
        read(path, FIELDS, DataSpec(("top",), SIDE[0], JOINTS, {"state": JOINTS}, 20), Faults())


def test_pictures_of_another_size_than_the_facts(tmp_path):
    path = write_set(tmp_path / "set")
    write_film(path / f"videos/chunk-000/{CAMERA}/episode_000002.mp4", numbered(36, (64, 64)))
    with pytest.raises(Broken, match="episode 2: .* has pictures of 64 x 64 px, but meta/info.json says 48 x 64"):
        read(path, FIELDS, SPEC, Faults())


def test_damaged_facts(tmp_path):
    path = write_set(tmp_path / "set")
    file = path / "meta/info.json"
    text = file.read_text()
    for new, words in (
        (text[:100], "is no valid JSON"),
        ("[]", "holds a list, expected keys such as fps"),
        (text.replace('"fps"', '"rate"'), "lacks a usable 'fps'"),
        (text.replace("v2.1", "v1.6"), r"LeRobot dataset v1\.6, expected v2 or v3"),
        (text.replace("{episode_index:06d}.parquet", "{number}.parquet"), "names files as .*, which needs 'number'"),
    ):
        file.write_text(new)
        with pytest.raises(ValueError, match=words):
            read(path, FIELDS, SPEC, Faults())
    file.write_text(text)
    (path / "meta/episodes.jsonl").write_text("{")
    with pytest.raises(ValueError, match=r"Line 1 of .*episodes\.jsonl is no JSON object"):
        read(path, FIELDS, SPEC, Faults())
    (path / "meta/episodes.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks meta/episodes\.jsonl"):
        read(path, FIELDS, SPEC, Faults())
    shutil.rmtree(path)
    with pytest.raises(FileNotFoundError, match=r"There is no LeRobot dataset at .*set \(no folder there\)"):
        read(path, FIELDS, SPEC, Faults())


def test_av1_with_many_joints(tmp_path):
    """As robots of today are recorded: 480 x 640 px, AV1, 26 numbers."""
    film = {"codec": "libsvtav1", "gop": 2, "options": {"preset": "12", "crf": "5"}}
    path = write_set(tmp_path / "set", lengths=(12, 10), width=26, size=(480, 640), rate=30, film=film)
    spec = DataSpec(("top",), 480, 26, {"state": 26}, 30)
    store = read(path, FIELDS, spec, Faults())
    assert store.action.shape == (22, 26)
    np.testing.assert_array_equal(numbers_of(store.video["top"][:]), np.arange(22))


@pytest.mark.slow
@pytest.mark.real_data
@pytest.mark.skipif(not (REAL.exists() and ZARR.exists()), reason="the real Push-T recordings are not here")
def test_real_push_t_is_the_same_as_zarr_and_as_lerobot():
    pytest.importorskip("zarr")
    one, other = PushT(REAL).store, PushT(ZARR).store
    assert (one.episodes, one.steps) == (206, 25650)
    np.testing.assert_array_equal(one.action, other.action)
    np.testing.assert_array_equal(one.state["agent"], other.state["agent"])
    np.testing.assert_array_equal(one.ends, other.ends)
    assert set(one.instructions) == {"Push the T-shaped block onto the T-shaped target."}
    steps = np.random.default_rng(0).integers(0, one.steps, 500)
    off = np.abs(one.video["top"][steps].astype(int) - other.video["top"][steps])
    assert off.mean() < 1
    assert off.mean(axis=(1, 2, 3)).max() < 3
