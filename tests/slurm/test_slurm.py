"""Jobs of two nodes on a real SLURM: they survive their time limit and a lost node, and end when a rank dies."""

import os
import re
import time
from pathlib import Path

import pytest
import torch

pytestmark = [pytest.mark.slow, pytest.mark.slurm]
STEPS, MINUTE = 200, 60.0
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def uninterrupted(submitted, tmp_path_factory):
    """Give what a job writes that nothing happens to."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    job = submitted(folder, STEPS, 0.0)
    assert job.end(180) == "COMPLETED", job.told()
    assert job.lives() == 0
    return last(folder)


def last(folder):
    return torch.load(folder / "last.ckpt", weights_only=True)


def check_same(left, right):
    """Compare weights, their average and the optimizer's moments, bit for bit."""
    assert left["global_step"] == right["global_step"] == STEPS
    for key in ("state_dict", "current_model_state"):
        assert all(torch.equal(left[key][name], right[key][name]) for name in right[key])
    moments = ([s for o in c["optimizer_states"] for s in o["state"].values()] for c in (left, right))
    assert all(torch.equal(a[name], b[name]) for a, b in zip(*moments, strict=True) for name in b)


def step(folder):
    """Steps in the newest checkpoint."""
    return last(folder)["global_step"] if (folder / "last.ckpt").exists() else 0


def test_a_job_that_reaches_its_limit_goes_on_as_if_nothing_had_been(submit, tmp_path, uninterrupted, tiny_data):
    folder = tmp_path / "run"
    staging = {"STAGE": str(tiny_data.path), "SLURM_TMPDIR": str(tmp_path / "disk")}
    job = submit(folder, STEPS, 0.8, "--time=2", "--signal=SIGUSR1@20", **staging)
    seconds = job.until(lambda: job.lives() == 1, 180, "return to the queue")
    assert re.search(r"0: uva: stopped by SIGUSR1 at step \d+; the checkpoint is \S+requeue.ckpt", job.told()), (
        job.told()
    )
    assert re.search(rf"0: uva: job {job.id} goes back to the queue", job.told()), job.told()
    assert job.end(150) == "COMPLETED", job.told()
    assert job.lives() == 1
    assert "requeue.ckpt" in re.findall(r"Restored all states from the checkpoint at (\S+)", job.told())[0]
    staged = (job.logs / "stage.log").read_text()
    assert (
        set(re.findall(r"([01]): \S+ copied", staged)) == set(re.findall(r"([01]): \S+ is there", staged)) == {"0", "1"}
    )
    assert job.told().count("Starting with 2 processes") == 2, "once in each life"
    assert job.cluster.state(job.id)["NodeList"] == "uvanode[1-2]"
    check_same(last(folder), uninterrupted)
    assert not list(folder.glob("requeue*"))
    print(f"limit: back in the queue after {seconds:.0f} s")  # noqa: T201


def test_a_job_survives_a_lost_node(submit, cluster, tmp_path, uninterrupted):
    folder = tmp_path / "run"
    job = submit(folder, STEPS, 0.3)
    job.until(lambda: step(folder) >= 10, 90, "ten steps")
    cluster.kill_node("uvanode2")
    seconds = job.until(lambda: job.lives() == 1, 90, "return to the queue")
    cluster.start_node("uvanode2")
    assert job.end(180) == "COMPLETED", job.told()
    check_same(last(folder), uninterrupted)
    print(f"node: back in the queue after {seconds:.0f} s")  # noqa: T201


def test_every_task_of_an_array_has_its_line_and_goes_on_after_status_75(cluster, tmp_path):
    uva, variants = tmp_path / "uva", tmp_path / "variants.txt"
    uva.write_text('#!/bin/sh\necho "$@"\n[ "$SLURM_RESTART_COUNT" = 1 ] || exit 75\n')  # as without scontrol
    uva.chmod(0o755)
    variants.write_text("all\nno-video --model.sampler.shares.video=0 --seed_everything=1\n")
    exported = f"--export=ALL,UVA={uva},VARIANTS={variants}"
    command = ["sbatch", "--parsable", "--array=1-2", "--cpus-per-task=1", f"--chdir={tmp_path}", exported]
    id_ = cluster(*command, str(ROOT / "scripts/slurm/ablation_array.sbatch"), "--config", "a.yaml", cwd=ROOT).strip()
    cluster.wait(lambda: not cluster("squeue", "-h", "-j", id_, check=False).strip(), 90, "end of array")
    for name, options in (line.partition(" ")[::2] for line in variants.read_text().splitlines()):
        logs = tmp_path / "runs" / "slurm" / f"uva-ablation-{id_}" / name
        lives = (logs / "train.log").read_text().splitlines()
        given = f"--trainer.logger.name=ablation-{name} {options}".strip()
        assert lives == [f"0: fit --config a.yaml {given} --trainer.num_nodes=1 --trainer.devices=1"] * 2
        assert "stopped by a signal: back to the queue" in (logs / "batch.log").read_text()


def test_a_dead_rank_ends_the_job_within_a_minute_by_name(submit, cluster, tmp_path):
    folder = tmp_path / "run"
    job = submit(folder, STEPS, 1.0)
    job.until(lambda: step(folder) >= 2, 90, "two steps")
    (victim,) = (pid for pid, rank in cluster.tasks(job.id).items() if rank == 1)
    os.kill(victim, 9)
    start = time.monotonic()
    assert job.end(MINUTE) == "FAILED", job.told()
    seconds = time.monotonic() - start
    assert re.search(r"uvanode2: task 1: Killed", job.told()), job.told()
    job.until(lambda: not cluster.tasks(job.id), 20, "no process left")
    assert job.lives() == 0
    print(f"rank: ended after {seconds:.0f} s")  # noqa: T201
