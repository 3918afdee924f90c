"""A run that is stopped and goes on is the run that was not, whatever it reads and however many processes it has."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import resume_cases
import torch
from resume_cases import HALF, SOURCES, STEPS

from uva_lightning.datamodules.shards.samplers import cache_latents
from uva_lightning.model.tokenizers.linear_patches import LinearPatches

pytestmark = pytest.mark.slow  # one start of two processes serves all tests of this file
TWO = ("files", "shards in workers")


@pytest.fixture(scope="module")
def folder(tiny_data, tmp_path_factory):
    """Hold demonstrations, shards of them, and whatever the runs write."""
    from uva_lightning.datamodules.pusht import PushTMirror

    place = tmp_path_factory.mktemp("resume")
    (place / "demos").symlink_to(tiny_data.path)
    cache_latents(tiny_data(symmetry=PushTMirror()), LinearPatches(channels=8), place / "shards", ("cpu",), 0.06)
    return place


@pytest.fixture(scope="module")
def losses(folder):
    """Losses of all runs; every run leaves a checkpoint in the folder."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = {(source, 1, 0.1): resume_cases.main(folder, source, world=1) for source in SOURCES}
    for source in ("files", "shards"):
        found[source, 1, 0.0] = resume_cases.main(folder, source, 0.0, 1)
    for rank in _start_two(folder):
        found[rank] = json.loads((folder / f"rank{rank}.json").read_text())
    for source in TWO:
        found[source, 2, 0.1] = found[0][source]
    for source in ("files", "shards"):
        found[source, 2, 0.0] = found[0][f"{source} of one"]
        begun, out = folder / f"{source}-2-0.0-begin.ckpt", folder / f"{source}-1-0.0-other.ckpt"
        found[source, 1, 0.0]["other"] = resume_cases.run(folder, source, 1, STEPS, out, begun, 0.0)
    torch.set_num_threads(threads)
    return found


def _start_two(folder):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    processes = []
    for rank in range(2):
        place = {"LOCAL_RANK": rank, "WORLD_SIZE": 2, "NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = os.environ | {name: str(value) for name, value in place.items()}
        env |= {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
        with (folder / f"output{rank}.txt").open("w") as file:
            command = [sys.executable, resume_cases.__file__, str(folder), *TWO]
            processes.append(subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT))
    try:
        for rank, process in enumerate(processes):
            assert process.wait(timeout=400) == 0, (folder / f"output{rank}.txt").read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
    return range(2)


def state(folder, source, world, dropout, name):
    """All of a checkpoint that training goes on from."""
    content = torch.load(folder / f"{source}-{world}-{dropout}-{name}.ckpt", weights_only=True)
    kept = ("state_dict", "current_model_state", "optimizer_states", "lr_schedulers", "fitted", "global_step")
    averaged = [value for key, value in content["callbacks"].items() if key.startswith("EMA")]
    assert len(averaged) == 1
    return {key: content[key] for key in kept} | {"averaged": averaged}


def flat(tree, path=()):
    """Leaves of nested dicts and lists by their path."""
    if isinstance(tree, dict | list | tuple):
        pairs = tree.items() if isinstance(tree, dict) else enumerate(tree)
        return {key: leaf for name, value in pairs for key, leaf in flat(value, (*path, str(name))).items()}
    return {path: tree}


CASES = [(source, 1) for source in SOURCES] + [(source, 2) for source in TWO]


@pytest.mark.parametrize(("source", "world"), CASES)
def test_stopping_changes_no_bit(losses, folder, source, world):
    """Within an epoch, then over its end: weights, averages, optimizer, balancer and the loss of every step."""
    whole, rest = (flat(state(folder, source, world, 0.1, name)) for name in ("whole", "rest"))
    assert set(whole) == set(rest)
    for path, value in whole.items():
        same = value.equal(rest[path]) if isinstance(value, torch.Tensor) else value == rest[path]
        assert same, path
    ran = losses[source, world, 0.1]
    assert {**ran["begin"], **ran["rest"]} == ran["whole"]
    assert set(ran["whole"]) >= {str(step) for step in range(1, STEPS + 1)}
    assert len(ran["begin"]) < len(ran["whole"])
    assert any("scale" in "".join(path).lower() or "extra_state" in "".join(path) for path in whole)


@pytest.mark.parametrize("source", ["files", "shards"])
@pytest.mark.parametrize(("begun", "ended"), [(1, 2), (2, 1)])
def test_the_number_of_processes_may_change(losses, folder, source, begun, ended):
    """Same samples, objectives, masks and noise; sums round differently. Dropout is off: it is each process's own."""
    ran = losses[source, ended, 0.0]
    for step, loss in ran["whole"].items():
        expected = losses[source, begun, 0.0]["whole"][step]
        assert loss == pytest.approx(expected, rel=1e-4), f"step {step} of {begun} and {ended} processes"
    assert set(ran["other"]) == {step for step in ran["whole"] if int(step) > HALF} | (set(ran["other"]) & {str(HALF)})
    for step, loss in ran["other"].items():
        assert loss == pytest.approx(ran["whole"][step], rel=1e-4), f"step {step}, begun by {begun}, ended by {ended}"
    whole, other = (state(folder, source, ended, 0.0, name)["state_dict"] for name in ("whole", "other"))
    for name, value in whole.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(other[name], value, rtol=1e-2, atol=2e-4)


def test_processes_agree(losses):
    assert losses[0] == losses[1]
