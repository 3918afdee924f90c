"""The shipped quickstart runs episodes in simulation beside its training, and one rank of two knows the robot."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from hardware_logs import scalars
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from uva_lightning.robot.control import Control

SUPPORT, ROOT = Path(__file__).parent / "support", Path(__file__).parents[1]

needs_sim = pytest.mark.skipif(
    find_spec("mujoco") is None or find_spec("zarr") is None, reason="needs MuJoCo and zarr, extras [sim] and [data]"
)


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """Three scripted demonstrations."""
    from uva_lightning.datamodules.simulated_arm import ReachingDemos, SimulatedArm

    path = tmp_path_factory.mktemp("demos") / "arm.zarr"
    try:
        ReachingDemos(3)(path, SimulatedArm(path))
    except OSError as error:
        pytest.skip(str(error))
    return path


def small(folder, demos, driver, devices=1, **rollout):
    """Lay a tiny size over the quickstart."""
    rollout = {"enabled": True, "dry_run": False, "driver": driver, "every": 2, "episodes": 2, "films": 1, **rollout}
    rollout.setdefault("bench", {"class_path": "SimBench", "init_args": {"image_size": 64}})
    rollout.setdefault("control", {"rate_hz": 5, "max_steps": 30})
    rollout.setdefault("evaluator", {"nice": 0, "wait_at_end": 200.0})
    head = {"init_args": {"denoiser": {"init_args": {"width": 16, "depth": 1}}}}
    action = {"init_args": {"steps": 2, "denoiser": {"init_args": {"width": 16, "depth": 1, "draws": 1}}}}
    content = {
        "model": {
            "transformer": {"init_args": {"width": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}},
            "heads": {"video": head, "action": action},
        },
        "data": {"init_args": {"path": str(demos), "batch_size": 8, "val_ratio": 0.3}},
        "trainer": {
            "max_steps": 4,
            "val_check_interval": 2,
            "limit_val_batches": 2,
            "devices": devices,
            "enable_progress_bar": False,
            "logger": {"init_args": {"save_dir": str(folder), "name": "run"}},
            "callbacks": ["EMA", {"class_path": "HardwareRollout", "init_args": rollout}],
        },
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def fit(config, *options):
    script = config.parent / "train.py"
    script.write_text("import sys; from uva_lightning.cli import main; sys.exit(main(sys.argv[1:]))")
    paths = os.pathsep.join([str(ROOT / "src"), str(SUPPORT)])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), "fit", "--config", str(ROOT / "configs/quickstart_arm.yaml")]
    result = subprocess.run(
        [*command, "--config", str(config), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
        cwd=config.parent,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stderr


def found(folder):
    """Give the folder and the content of the one result."""
    (result,) = folder.glob("run/hardware/results/*/result.json")
    content = json.loads(result.read_text())
    assert content["available"], content["reason"]
    assert (content["step"], len(content["episodes"])) == (4, 2)
    logged = scalars(folder)
    labels = [row["label"] for row in content["episodes"]]
    assert logged["hardware/success_rate"][-1] == (4, labels.count("success") / 2)
    assert logged["hardware/age_steps"][-1][1] == 0
    assert len(list(folder.glob("run/hardware/episodes/*/steps.parquet"))) == 2
    assert (result.parent / "episode_000.mp4").stat().st_size > 1000
    images = EventAccumulator(str(folder / "run"), size_guidance={"images": 0})
    images.Reload()
    assert images.Images("hardware/episodes")[0].step == 4
    return content["episodes"]


@needs_sim
@pytest.mark.slow
def test_the_quickstart_runs_episodes_in_simulation(demos, tmp_path):
    fit(small(tmp_path, demos, "Reaching"))
    assert [row["label"] for row in found(tmp_path)] == ["success", "success"]


@needs_sim
@pytest.mark.slow
def test_of_two_ranks_one_knows_the_robot(demos, tmp_path):
    """Its evaluator drives by the model; the second rank starts nothing and waits for nobody."""
    fit(small(tmp_path, demos, "TrainedModel", devices=2), "--trainer.strategy=ddp")
    rows = found(tmp_path)
    assert {row["label"] for row in rows} <= {"success", "failure"}
    assert all(row["latency"]["inference"] for row in rows)
    events = [json.loads(line)["event"] for line in (tmp_path / "run/hardware/events.jsonl").read_text().splitlines()]
    assert events == ["started", "submitted", "result"]


def test_control_of_the_quickstart_is_one():
    content = yaml.safe_load((ROOT / "configs/quickstart_arm.yaml").read_text())
    (entry,) = (c for c in content["trainer"]["callbacks"] if isinstance(c, dict) and "Hardware" in c["class_path"])
    Control(**entry["init_args"]["control"])
    assert entry["init_args"]["enabled"]
