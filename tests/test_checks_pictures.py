"""Checks of pictures and rates: data with a fault, and data without."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from made_data import ENDS, LENGTHS, SIZE, STEPS, Cut, Made, bad, examined, only, sound_store
from PIL import Image

from uva_lightning.datamodules.store import EpisodeStore
from uva_lightning.datamodules.windows import Window
from uva_lightning.inspection.checks.base import Finding


@pytest.fixture
def sound():
    return sound_store()


@pytest.fixture
def found(tmp_path):
    return partial(examined, path=tmp_path)


def test_frozen_pictures(sound, found):
    sound.video["front"][20:30] = sound.video["front"][20]
    finding = only(found(sound), "frozen pictures")
    assert (finding.count, finding.first) == (1, "episode 0, step 20: front stands still for 9 steps")


def test_frozen_pictures_are_found_through_a_codec(sound, found):
    rng = np.random.default_rng(0)
    sound.video["front"][20:30] = sound.video["front"][20]
    sound.video["front"][:] = (sound.video["front"].astype(int) + rng.integers(-2, 3, sound.video["front"].shape)).clip(
        0
    )
    only(found(sound), "frozen pictures")


def test_a_still_scene_is_not_frozen(sound, found):
    place = sound.state["eef"][:, :3]
    for values in (sound.action, sound.state["eef"], sound.video["front"]):
        values[20:40] = values[20]
    sound.state["eef"][:, 0] += np.random.default_rng(0).normal(0, 1e-3, STEPS)  # noise of a sensor
    assert bad(found(sound)) == {}
    assert np.ptp(place[20:40, 0]) > 0


def test_still_pictures_without_numbers_are_a_warning(sound, found):
    sound.video["front"][20:30] = sound.video["front"][20]
    findings = found(EpisodeStore(sound.video, None, {}, ENDS), facts=replace(Made.facts, state_dims={}))
    only(findings, "frozen pictures", "warn")


def test_black_pictures(sound, found):
    sound.video["front"][ENDS[0] + 5 : ENDS[0] + 7] = 2
    finding = only(found(sound), "blank pictures")
    assert (finding.count, finding.first) == (2, "episode 1, step 5: front")


def test_truncated_video(sound, found):
    cut = replace(sound, video={"front": Cut(sound.video["front"], ENDS[2])})
    finding = only(found(cut), "readable")
    assert (finding.count, finding.first) == (1, f"arm.mp4 lacks the frames from step {ENDS[2]} on; copy it again.")
    assert bad(found(cut, every=4)) == {}  # looks at the first episode only


@pytest.mark.parametrize("times", [2, 3])
def test_rate_that_is_too_high(sound, found, times):
    sound.video["front"][:] = sound.video["front"][np.arange(STEPS) // times * times]
    finding = bad(found(sound))["repeated pictures"]
    assert finding.level == "FAIL"
    assert f"the rate is {times} times too high" in finding.said
    assert f"data.window.every={times}" in finding.fix


def test_uneven_repeats_are_a_warning(sound, found):
    steps = np.arange(STEPS)
    sound.video["front"][:] = sound.video["front"][steps - (steps % 5 == 2) - (steps % 5 == 4)]
    finding = only(found(sound), "repeated pictures", "warn")
    assert "about 5.96 a second are new, of 10" in finding.said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda video: video[:, ::-1], "upside down"),
        (lambda video: video[:, :, ::-1], "mirrored"),
        (lambda video: video[:, ::-1, ::-1], "turned by 180 degrees"),
    ],
)
def test_one_episode_the_wrong_way_up(sound, found, change, words):
    video = sound.video["front"].copy()
    video[ENDS[0] : ENDS[1]] = change(video[ENDS[0] : ENDS[1]])
    finding = only(found(replace(sound, video={"front": video})), "upright pictures")
    assert (finding.count, finding.first) == (1, f"episode 1: front is {words}")


def test_scenes_that_have_nothing_in_common_are_not_compared(sound, found):
    rng = np.random.default_rng(1)
    scenes = rng.integers(60, 256, (len(LENGTHS), 8, 8, 3), dtype=np.uint8).repeat(4, axis=1).repeat(4, axis=2)
    square = sound.video["front"][..., :1] == 30
    video = np.where(square, sound.video["front"], scenes.repeat(LENGTHS, axis=0))
    finding = found(replace(sound, video={"front": video}))["upright pictures"]
    assert finding.level == "-"
    assert "give --reference" in finding.said


@pytest.fixture
def reference(sound, tmp_path):
    file = tmp_path / "up.png"
    Image.fromarray(sound.video["front"][0]).resize((96, 96)).save(file)
    return file


def test_all_episodes_upside_down_against_a_reference(sound, found, reference):
    assert bad(found(sound, reference=reference)) == {}
    turned = replace(sound, video={"front": sound.video["front"][:, ::-1].copy()})
    assert bad(found(turned)) == {}  # nothing tells
    finding = only(found(turned, reference=reference), "upright pictures")
    assert (finding.count, finding.first) == (4, "episode 0: front is upside down")


def test_a_reference_that_tells_nothing(sound, found, tmp_path):
    even = np.full((SIZE, SIZE, 3), 128, np.uint8)
    even[12:20, 12:20] = 0
    Image.fromarray(even).save(tmp_path / "even.png")
    assert "fits as well" in only(found(sound, reference=tmp_path / "even.png"), "upright pictures", "warn").said


def test_a_reference_that_is_none(sound, found, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no reference at .*expected a picture or a folder"):
        found(sound, reference=tmp_path / "none.png")
    (tmp_path / "text.png").write_text("text")
    with pytest.raises(ValueError, match="text.png is no picture"):
        found(sound, reference=tmp_path / "text.png")


# -- clocks ---------------------------------------------------------------------------------------------------------


def test_time_stamps_of_another_rate(sound, found, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(rate, late):
        owner = np.repeat([0, 1, 2, 3], LENGTHS)
        stamps = (np.arange(STEPS) - np.repeat([0, *ENDS[:-1]], LENGTHS)) / np.where(owner == 1, late, rate)
        (tmp_path / "data").mkdir(exist_ok=True)
        table = {"timestamp": stamps.astype(np.float32), "episode_index": owner}
        parquet.write_table(pyarrow.table(table), tmp_path / "data/file-000.parquet")

    write(10, 10)
    assert found(sound)["rate of the clocks"] == Finding("ok", "4 clocks run at 10 Hz")
    write(10, 30)
    finding = only(found(sound), "rate of the clocks")
    assert (finding.count, finding.first) == (1, "file-000.parquet, episode 1 of it: 30 Hz")


def test_video_stream_of_another_rate(sound, found, tmp_path):
    pytest.importorskip("av")
    from uva_lightning.video_files import write_mp4

    write_mp4(tmp_path / "right.mp4", sound.video["front"], 10)
    assert found(sound)["rate of the clocks"].level == "ok"
    write_mp4(tmp_path / "wrong.mp4", sound.video["front"], 20)
    assert only(found(sound), "rate of the clocks").first == "wrong.mp4: 20 Hz"
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    assert found(sound)["rate of the clocks"].count == 1


def test_every_third_step_is_compared_at_the_recorded_rate(sound, found, tmp_path):
    pytest.importorskip("av")
    from uva_lightning.video_files import write_mp4

    write_mp4(tmp_path / "right.mp4", sound.video["front"], 10)
    window = Window(2, horizon=4, pad=(1, 3), every=3)
    assert found(sound, window=window)["rate of the clocks"].level == "ok"
