"""A step of several processes is the step of one on all their samples."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import gradient_cases
import pytest
import torch
from gradient_cases import BALANCERS, CASES

pytestmark = pytest.mark.slow  # one start of two processes serves all tests of this file


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """What one process did in each case, and each of two."""
    folder, processes = tmp_path_factory.mktemp("two"), []
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    for rank in range(2):
        place = {"LOCAL_RANK": rank, "WORLD_SIZE": 2, "NODE_RANK": 0, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        env = os.environ | {name: str(value) for name, value in place.items()}
        env["PYTHONPATH"] = str(Path(__file__).parents[1] / "src")
        command = [sys.executable, gradient_cases.__file__, str(folder), *CASES]
        with (folder / f"output{rank}.txt").open("w") as file:
            processes.append(subprocess.Popen(command, env=env, stdout=file, stderr=subprocess.STDOUT))
    alone = {case: gradient_cases.run(case, folder) for case in CASES}
    try:
        for rank, process in enumerate(processes):
            assert process.wait(timeout=600) == 0, (folder / f"output{rank}.txt").read_text()[-3000:]
    finally:
        for process in processes:
            process.kill()
    return alone, *(torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2))


def whole(values):
    return torch.cat([value.flatten() for value in values.values() if value is not None])


def idle(step):
    return {name for name, gradient in step["gradients"].items() if gradient is None}


@pytest.mark.parametrize("case", CASES)
def test_gradients_and_weights_are_those_of_one_process(results, case):
    """Unequal masks, shares and objectives in each; several steps, since DDP's mistakes show in the second only."""
    alone, first, second = (one[case]["steps"] for one in results)
    exact = {"half": (2e-2, 2e-2), "mixed": (2e-6, 1e-5), "alike": (2e-6, 1e-5), "one mixed": (2e-6, 1e-5)}
    gradients, weights = exact.get(case, (1e-4, 5e-3))  # AdamW divides gradients that are no more than rounding
    assert len(alone) == len(first) == len(second) >= 3
    for one, two, other in zip(alone, first, second, strict=True):
        assert idle(one) == idle(two), "what had no samples anywhere is left alone"
        size = float(whole(one["gradients"]).norm())
        error = float((whole(one["gradients"]) - whole(two["gradients"])).norm())
        assert error < gradients * size
        moved = float((whole(one["weights"]) - whole(two["weights"])).norm())
        assert moved < weights
        assert all(two["weights"][name].equal(values) for name, values in other["weights"].items())
    assert not whole(alone[0]["weights"]).equal(whole(alone[-1]["weights"]))


@pytest.mark.parametrize("case", CASES)
def test_what_is_logged_is_over_all_processes(results, case):
    alone, first, second = (one[case]["logged"] for one in results)
    assert set(alone) == set(first)
    assert {name for name in alone if name.startswith("train/")} >= {"train/loss", "train/policy/share"}
    for name in alone:
        assert first[name] == pytest.approx(alone[name], rel=2e-2 if case == "half" else 1e-5, abs=1e-6), name
        assert second[name] == first[name]
    if case == "alike":
        assert {"val/loss", "val/joint/video", "val/inverse/action"} <= set(alone)


def test_gradients_are_clipped_alike(results):
    for one in results:
        for step in one["accumulated"]["steps"]:
            assert float(whole(step["gradients"]).norm()) == pytest.approx(0.05, rel=1e-3)


@pytest.mark.parametrize("case", ["one", "stages", "own"])
def test_heads_and_objectives_without_samples_keep_their_weights(results, case):
    """AdamW would move them by momentum and decay."""
    for one in results:
        steps, rested = one[case]["steps"], set()
        for before, after in zip(steps, steps[1:], strict=False):
            for name in idle(after):
                assert after["weights"][name].equal(before["weights"][name])
                rested.add(name.rsplit(".denoiser")[0].rsplit(".aggregate")[0].rsplit(".layer")[0])
        expected = {"one": {"heads.video", "heads.action"}, "stages": {"heads.action"}, "own": {"objectives.0"}}
        assert expected[case] <= rested
        last = steps[-1]["gradients"]
        assert last["heads.action.denoiser.net.output.weight"] is not None, "and are trained again"


def numbers(kept):
    """All numbers in nested mappings, by their path."""
    if torch.is_tensor(kept):
        return {(number,): value for number, value in enumerate(kept.tolist())}
    if not isinstance(kept, dict):
        return {(): kept}
    return {(name, *path): value for name, part in kept.items() for path, value in numbers(part).items()}


@pytest.mark.parametrize("balancer", BALANCERS)
def test_statistics_of_balancers_and_samplers_are_those_of_one_process(results, balancer):
    """The second process has no actions, so it sees other objectives than the first."""
    alone, first, second = (numbers(one[balancer]["kept"]) for one in results)
    assert len(alone) > 5
    assert first == pytest.approx(alone, rel=1e-3, abs=1e-5)
    assert second == first
    assert len({round(value, 4) for path, value in alone.items() if "shares" in path}) > 2


def test_a_parameter_that_no_loss_uses_is_named(results):
    for complaint in (one["refused"]["Idle"] for one in results[1:]):
        assert "2 parameters are in no loss of the first step, such as objectives.0.spare.weight" in complaint


def test_losses_that_not_all_processes_have_are_named(results):
    """Adding them up would wait for ever."""
    said = sorted(one["refused"]["Fickle"].partition(" give the losses ")[2] for one in results[1:])
    assert said[0].startswith("none, expected those of the other processes; let loss_terms give the same names")
    assert said[1].startswith("wrong/size, expected those of the other processes; let loss_terms")
