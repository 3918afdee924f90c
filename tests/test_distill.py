"""One-step heads: the student's loss, and `uva distill` from a trained checkpoint to one that a policy uses."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import yaml

from uva_lightning.distillation import Recipe, run_config
from uva_lightning.model.checkpoint import load_module, read
from uva_lightning.model.heads.consistency import Consistency
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.model.heads.flow import FlowMatching
from uva_lightning.policy.windows import WindowPolicy


def flow(channels, condition):
    return FlowMatching(channels, condition, width=64, depth=2)


def diffusion(channels, condition):
    return GaussianDiffusion(channels, condition, width=64, depth=2, clip=2.0)


def measured(process, target, condition):
    """Mean loss at levels and noise of torch's global generator."""
    normal = torch.randn(len(target), process.draws, target.shape[1] + 1)
    return process.loss(target, condition, process.noising(normal)).mean()


def trained(make):
    """A teacher that knows two bumps: at (1, -1) and, less often, at (-1, 1), moved by the condition."""
    torch.manual_seed(0)
    teacher = make(2, 1)
    optimizer = torch.optim.Adam(teacher.parameters(), lr=2e-3)
    for _ in range(300):
        condition = torch.rand(256, 1)
        side = torch.where(torch.rand(256, 1) < 0.3, -1.0, 1.0)
        target = torch.cat((side, -side), dim=1) * (0.5 + 0.5 * condition) + 0.05 * torch.randn(256, 2)
        optimizer.zero_grad()
        measured(teacher, target, condition).backward()
        optimizer.step()
    return teacher.eval()


@pytest.mark.parametrize("make", [flow, diffusion])
def test_the_way_ends_where_the_sampler_does(make):
    teacher, noise, condition = make(2, 1), torch.randn(5, 2), torch.rand(5, 1)
    for parameter in teacher.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    times, points = zip(*teacher.trace(condition, noise, 7), strict=True)
    assert len(times) == 8
    assert (times[0], times[-1]) == (1.0, 0.0)
    assert list(times) == sorted(times, reverse=True)
    assert points[0].equal(noise)
    assert torch.allclose(points[-1], teacher.sample(condition, noise, 7 if make is flow else "dpm7"), atol=1e-5)


@pytest.mark.parametrize("make", [flow, diffusion])
def test_one_step_of_the_student_is_many_of_the_teacher(make):
    teacher = trained(make)
    student = Consistency(2, 1, width=64, depth=2, teacher=lambda *_: teacher, teacher_steps=10)
    own = {n: v[:2] if n.startswith("output.") else v for n, v in teacher.net.state_dict().items()}
    student.net.load_state_dict(own)
    optimizer = torch.optim.Adam(student.net.parameters(), lr=2e-3)
    for _ in range(200):
        optimizer.zero_grad()
        measured(student, torch.zeros(256, 2), torch.rand(256, 1)).backward()
        optimizer.step()
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    condition, noise = torch.rand(500, 1), torch.randn(500, 2)
    with torch.no_grad():
        taught = student.taught(condition, noise)

        def far(made):
            return float((made - taught).square().mean())

        undistilled = far(teacher.sample(condition, noise, 1))
        assert far(student.sample(condition, noise, 1)) < 0.15 * undistilled
        twice = student.sample(condition, noise, 2)
    assert (twice.sum(dim=1).abs() < 0.5).float().mean() > 0.9, "two steps stay on the bumps"
    assert not twice.allclose(student.sample(condition, noise, 1), atol=1e-3)


def test_a_student_starts_as_its_teacher_and_jumps_nowhere_from_the_end():
    teacher = flow(3, 4)
    student = Consistency(3, 4, width=64, depth=2, teacher=lambda *_: teacher, teacher_steps=1)
    student.net.load_state_dict(teacher.net.state_dict())
    noise, condition = torch.randn(6, 3), torch.randn(6, 4)
    assert torch.allclose(student.sample(condition, noise, 1, 0.5), teacher.sample(condition, noise, 1, 0.5))
    assert student.loss_at(condition, torch.full((6,), 0.3), noise).abs().max() < 1e-10


def test_what_cannot_be_distilled_is_refused():
    with pytest.raises(ValueError, match="The teacher is a Consistency, expected FlowMatching or another"):
        Consistency(2, 1, teacher=lambda *sizes: Consistency(*sizes))
    with pytest.raises(ValueError, match="is distilled and has no teacher any more"):
        measured(Consistency(2, 1, width=8, depth=1), torch.zeros(1, 2), torch.zeros(1, 1))


@pytest.fixture(scope="module")
def checkpoint(tiny_run, tmp_path_factory):
    """A run of two heads, the action head's flow trained long enough to know where the agent goes."""
    from uva_lightning.cli import main

    folder = tmp_path_factory.mktemp("run")
    config = tiny_run(folder, 60, log_every_n_steps=1)
    content = yaml.safe_load(config.read_text())
    content["model"]["optimizer"] = {"class_path": "AdamWCosine", "init_args": {"lr": 3e-3}}
    content["trainer"]["callbacks"][1]["init_args"]["every_n_train_steps"] = 60
    config.write_text(yaml.safe_dump(content))
    assert main(["fit", "--config", str(config)]) == 0
    return folder / "last.ckpt"


def test_uva_distill_makes_a_checkpoint_that_acts_in_one_step(uva, checkpoint, tmp_path):
    out = tmp_path / "one"
    options = ("--steps", 80, "--teacher_steps", 8, "--lr", 3e-3, "--batch_size", 4)
    status, said, complaint = uva("distill", "--ckpt", checkpoint, "--out", out, *options)
    assert status == 0, complaint
    assert "distilled" in said
    found = json.loads((out / "distilled.json").read_text())["distances"]
    assert found["distilled"] < 0.5 * found["undistilled"]

    before, _ = load_module(checkpoint)
    after, _ = load_module(out / "distilled.ckpt")
    head = after.head("action")
    assert isinstance(head.denoiser, Consistency)
    assert head.steps == 1
    assert head.denoiser.teacher is None
    kept = {n: v for n, v in after.state_dict().items() if not n.startswith("heads.action.denoiser.")}
    assert kept
    assert all(value.equal(before.state_dict()[name]) for name, value in kept.items())
    calls = []
    head.denoiser.net.input.register_forward_hook(lambda *_: calls.append(1))
    shapes = {"top": torch.zeros(1, 2, 96, 96, 3, dtype=torch.uint8).numpy()}
    WindowPolicy(after).act({"video": shapes, "state": {"agent": torch.full((1, 2, 2), 256.0).numpy()}})
    assert len(calls) == 1

    refusals = {
        (checkpoint, out): "distilled.ckpt exists, expected a new folder",
        (out / "distilled.ckpt", tmp_path / "two"): "The action head is distilled already",
    }
    for (source, target), words in refusals.items():
        status, _, complaint = uva("distill", "--ckpt", source, "--out", target)
        assert (status, complaint.count("\n")) == (2, 1)
        assert words in complaint
    assert "There is no checkpoint" in uva("distill", "--ckpt", tmp_path / "no.ckpt", "--out", tmp_path / "two")[2]
    assert (
        "no head for speech" in uva("distill", "--ckpt", checkpoint, "--out", tmp_path / "two", "--head", "speech")[2]
    )


def test_data_that_are_not_there_are_refused_and_not_made_up(uva, checkpoint, tiny_data, tmp_path):
    """Also where the run of the checkpoint made its data; see ``check_data`` for the other commands."""
    maker = {"class_path": "ScriptedDemos", "init_args": {"episodes": 1}}
    made_up, stored = tmp_path / "made_up.ckpt", torch.load(checkpoint, weights_only=True)
    config = yaml.safe_load(stored["config"])
    config["data"]["init_args"]["generate"] = maker
    torch.save(stored | {"config": yaml.safe_dump(config)}, made_up)
    nowhere = tmp_path / "nowhere"
    commands = [("distill", "--ckpt", made_up, "--out", tmp_path / "d", "--steps", 1), ("functions", "--ckpt", made_up)]
    commands += [("eval", "--suite", "pusht", "--ckpt", made_up), ("analyze", "--ckpts", made_up)]
    for command in commands:
        status, _, complaint = uva(*command, "--data", nowhere)
        assert (status, complaint.count("\n")) == (2, 1), complaint
        assert f"There are no data at {nowhere}, expected the path where recordings lie now; set --data" in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["made_up.ckpt"]

    module, _ = load_module(made_up)
    recipe = Recipe("action", 1, 1, 1e-3, 1, data=tiny_data.path)
    data = run_config(read(made_up)["config"], module, recipe, tmp_path / "d")["data"]["init_args"]
    assert (data["path"], data.get("generate")) == (str(tiny_data.path), None)
    kept = run_config(read(made_up)["config"], module, replace(recipe, data=None), tmp_path / "d")["data"]["init_args"]
    assert kept["generate"]["init_args"]["episodes"] == 1


@pytest.mark.slow
def test_uva_distill_goes_on_where_it_was_killed(uva, checkpoint, tmp_path, monkeypatch):
    from uva_lightning import distillation

    monkeypatch.setattr(distillation, "SAVED_EVERY", 2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    options = ("--steps", 4, "--teacher_steps", 2, "--batch_size", 4)
    for out in (whole, cut):
        assert uva("distill", "--ckpt", checkpoint, "--out", out, *options)[0] == 0
    for name in ("distilled.ckpt", "checkpoints/end.ckpt", "checkpoints/last.ckpt"):
        (cut / name).unlink()  # what a kill after two steps leaves
    for path in (cut / "checkpoints").glob("*step=4*"):
        path.unlink()
    assert uva("distill", "--ckpt", checkpoint, "--out", cut, *options, "--lr", 1e-2)[2].count("other options") == 1
    assert uva("distill", "--ckpt", checkpoint, "--out", cut, *options)[0] == 0
    one, other = (load_module(out / "distilled.ckpt")[0].state_dict() for out in (whole, cut))
    assert all(torch.allclose(value, other[name], rtol=1e-6, atol=1e-7) for name, value in one.items())
