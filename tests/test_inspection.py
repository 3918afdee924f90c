"""`uva data inspect` and `uva data check`: facts, pictures, status and files."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_data import STEPS, Cut, Made, bad, sound_store
from PIL import Image

from uva_lightning.commands.check_data import examine
from uva_lightning.datamodules.shards.speed import write_shards
from uva_lightning.datamodules.windows import Window
from uva_lightning.inspection.checks.base import Check, Finding, run
from uva_lightning.inspection.facts import collect
from uva_lightning.inspection.subject import Subject

SHARED = Path(os.environ.get("UVA_SHARED", Path(__file__).resolve().parents[2] / "shared"))
RECORDINGS = ("data/pusht/pusht_cchi_v7_replay_u8.zarr.zip", "data/lerobot_pusht_v30")


@pytest.fixture
def sound():
    return sound_store()


def test_a_check_of_ones_own(sound, monkeypatch, tmp_path):
    monkeypatch.setattr(Check, "known", [])
    monkeypatch.setattr(Made, "made", sound, raising=False)

    class Longest(Check):
        title = "longest"
        steps = 0

        def see(self, look):
            self.steps = max(self.steps, len(look.numbers["action"]))

        def finish(self):
            return Finding("ok", f"{self.steps} steps")

    assert Check.known == [Longest]
    subject = Subject(Made(tmp_path, val_ratio=0.3))
    assert list(run(subject, Check.known, show_progress=False)) == [("longest", Finding("ok", "70 steps"))]


def test_facts_read_no_picture(sound, monkeypatch, tmp_path):
    store = replace(
        sound,
        video={"front": Cut(sound.video["front"], 0)},
        instructions=["go", "go", "stop", "go"],
        names=["a", "b", "c", "d"],
    )
    monkeypatch.setattr(Made, "made", store, raising=False)
    facts = collect(Made(tmp_path, val_ratio=0.3, window=Window(2)))
    assert facts["lengths"] == {"min": 50, "median": 57.5, "max": 70}
    assert facts["hours"] == pytest.approx(STEPS / 10 / 3600)
    assert facts["cameras"]["front"] == {"stored": [32, 32], "delivered": [32, 32], "lazy": True, "mib_in_memory": 0}
    assert facts["instructions"] == {"go": 3, "stop": 1}
    assert facts["numbers"]["action"]["max"] == pytest.approx(sound.action.max(0).tolist())
    json.dumps(facts)


def test_inspect_then_check(uva, tiny_data, tmp_path):
    status, out, complaint = uva("data", "inspect", "--data", "PushT", "--data.path", tiny_data.path, "--out", tmp_path)
    assert (status, complaint) == (0, "")
    assert "6; 360 steps, 0.01 hours" in out
    assert "absolute target of the agent, px" in out
    facts = json.loads((tmp_path / "facts.json").read_text())
    assert (facts["layout"], facts["episodes"], facts["cameras"]["top"]["delivered"]) == ("demos", 6, [96, 96])
    with Image.open(tmp_path / "frames_top.png") as sheet:
        assert sheet.size == (4 + 8 * 164, 4 + 6 * 178)
    assert (tmp_path / "histograms.png").exists()

    options = ["--data", "PushT", "--data.path", tiny_data.path, "--reference", tmp_path, "--out", tmp_path]
    status, out, _ = uva("data", "check", *options)
    said = json.loads((tmp_path / "check.json").read_text())["checks"]
    assert status == int("FAIL" in {finding["level"] for finding in said.values()})
    assert all(f"{finding['level']:<6}{title}" in out for title, finding in said.items())


def test_check_fails_with_status_1(uva, sound, tmp_path):
    path = tmp_path / "demos"
    path.mkdir()
    (path / "meta.json").write_text(json.dumps({"format": "uva_lightning demos 1", "env": "pusht", "episodes": 2}))
    frames = sound.video["front"][:60].repeat(3, axis=1).repeat(3, axis=2)
    numbers = sound.state["eef"][:60, :2] * 512
    for episode, end in enumerate((60, 12)):
        file = path / f"episode_{episode:06d}.npz"
        np.savez(file, frames=frames[:end], action=numbers[:end], agent=numbers[:end])
    status, out, _ = uva("data", "check", "--data", "PushT", "--data.path", path, "--out", tmp_path)
    assert status == 1
    assert out.startswith("FAIL  length ")
    assert "first: episode 1: 12 steps" in out
    assert "-> remove them, or set data.window.allow_short_episodes=true" in out


@pytest.mark.slow
def test_scripted_demos_raise_no_alarm(tmp_path):
    pytest.importorskip("pymunk")
    from uva_lightning.datamodules.pusht import PushT
    from uva_lightning.demos import write_demos

    write_demos("pusht", tmp_path / "demos", episodes=6, workers=1)
    assert bad(dict(examine(PushT(tmp_path / "demos"), show_progress=False))) == {}


@pytest.mark.real_data
@pytest.mark.skipif(not SHARED.exists(), reason=f"recorded Push-T data not at {SHARED}")
@pytest.mark.parametrize("recording", RECORDINGS)
def test_human_recordings_raise_no_alarm(recording):
    from uva_lightning.datamodules.pusht import PushT

    assert bad(dict(examine(PushT(SHARED / recording), show_progress=False))) == {}


def test_a_cache_of_latents_shows_its_numbers(uva, tmp_path):
    write_shards(tmp_path / "shards", episodes=3, steps=60, tokens=4, numbers=8)
    options = ["--data", "uva_lightning.datamodules.shards.speed.Generated", "--data.path", tmp_path / "shards"]
    status, said, complaint = uva("data", "inspect", *options, "--out", tmp_path / "out")
    assert status == 0, complaint
    assert "No pictures:" in said
    assert (tmp_path / "out/facts.json").is_file()
