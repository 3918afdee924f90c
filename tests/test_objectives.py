"""UVA's five functions see exactly what the paper says, and the README's example of a sixth trains."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest
import torch
import yaml

from uva_lightning import objective
from uva_lightning.cli import main
from uva_lightning.commands.discovery import import_components
from uva_lightning.draws import seeded
from uva_lightning.objective import Objective, find, registry
from uva_lightning.objectives.forward_dynamics import ForwardDynamics
from uva_lightning.objectives.inverse_dynamics import InverseDynamics
from uva_lightning.objectives.policy_planner import PolicyPlanner
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.types import Tokens, Visible

import_components()

OBJECTIVES = {name: kind for name, kind in registry().items() if kind.__module__.startswith("uva_lightning.")}
ALL, NONE, PART = "all", "none", "part"
EXAMPLE = re.search(
    r"```python\n(# goal_reaching\.py.*?)```", (Path(__file__).parents[1] / "README.md").read_text(), re.S
)


def tokens():
    video = torch.zeros(2, 4, 256, 3)
    steps = torch.zeros(2, 16, 2)
    sequences = {"action": steps, "past_action": steps, "agent": torch.zeros(2, 4, 2)}
    return Tokens({"past_video": video, "video": video, **sequences})


def amount(mask):
    return ALL if mask.all() else PART if mask.any() else NONE


@pytest.mark.parametrize(
    ("kind", "video", "past_video", "action", "predicts", "eligible"),
    [
        (VideoModel, PART, ALL, NONE, ("video",), {"video"}),
        (ForwardDynamics, PART, ALL, ALL, ("video",), {"video", "action"}),
        (RobotPolicy, NONE, ALL, NONE, ("action",), {"action"}),
        (InverseDynamics, ALL, NONE, NONE, ("action",), {"video", "action"}),
        (PolicyPlanner, PART, ALL, NONE, ("video", "action"), {"video", "action"}),
    ],
)
def test_each_function_sees_and_predicts_what_uva_says(kind, video, past_video, action, predicts, eligible):
    seen = kind().visible(tokens(), seeded(0))
    assert amount(seen.video) == video
    assert amount(seen.past_video) == past_video
    assert amount(seen.action) == action
    assert amount(seen.past_action) == ALL
    assert amount(seen.agent) == ALL
    assert kind.predicts == predicts
    assert kind().eligible() == eligible


def test_history_names_everything_but_the_future():
    cameras = {name: torch.zeros(1, 2, 4, 1) for name in ("video", "past_video", "wrist", "past_wrist")}
    known = Tokens({**cameras, "action": torch.zeros(1, 4, 1), "force": torch.zeros(1, 4, 1)})
    shown = {name for name, mask in Visible.only(known, "history").items() if mask.all()}
    assert shown == {"past_video", "past_wrist", "force"}


def test_showing_a_modality_that_the_model_lacks_names_those_it_has():
    with pytest.raises(KeyError, match=r"Cannot show \['sound'\].*'video'"):
        Visible.only(tokens(), "history", "sound")


def test_a_function_is_found_by_its_name_and_a_misspelt_one_gets_a_hint():
    assert find("RobotPolicy") is RobotPolicy
    with pytest.raises(KeyError, match="No objective is called 'RobotPolcy': did you mean 'RobotPolicy'"):
        find("RobotPolcy")
    with pytest.raises(KeyError, match="known are .*VideoModel"):
        find("Juggling")


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="weight of RobotPolicy is -1"):
        RobotPolicy(weight=-1)


def test_an_objective_must_say_what_is_visible():
    with pytest.raises(TypeError, match="abstract"):
        Objective()


# -- what every objective must keep, those not yet written too ---------------------------------------------------------


@pytest.mark.parametrize("kind", OBJECTIVES.values(), ids=OBJECTIVES.keys())
class TestObjective:
    def test_visible_covers_every_modality(self, kind):
        values = tokens()
        seen = kind().visible(values, seeded(0))
        assert set(seen) == set(values)
        for name, mask in seen.items():
            assert mask.dtype == torch.bool
            assert mask.shape == values[name].shape[:-1]
            assert mask.device.type == "cpu"

    def test_something_that_is_predicted_stays_hidden(self, kind):
        values = tokens()
        assert kind.predicts
        for seed in range(5):
            seen = kind().visible(values, seeded(seed))
            assert all((~seen[name]).flatten(1).any(dim=1).all() for name in kind.predicts)

    def test_what_it_shows_of_the_future_is_what_a_sample_must_have(self, kind):
        values = tokens()
        shown = {name for name in values.future if kind().visible(values, seeded(0))[name].any()}
        assert shown <= kind().eligible()

    def test_tokens_are_not_changed(self, kind):
        values = tokens()
        before = {name: value.clone() for name, value in values.items()}
        kind().visible(values, seeded(0))
        assert all(value.equal(before[name]) for name, value in values.items())

    def test_the_generator_is_the_only_source_of_chance(self, kind):
        values = tokens()
        torch.manual_seed(1)
        one = kind().visible(values, seeded(3))
        torch.manual_seed(2)
        state = torch.get_rng_state()
        other = kind().visible(values, seeded(3))
        assert all(one[name].equal(other[name]) for name in one)
        assert torch.get_rng_state().equal(state)

    def test_it_does_not_decide_by_hidden_values(self, kind):
        values = tokens()
        seen = kind().visible(values, seeded(0))
        hidden = {name: ~mask.view(*mask.shape, 1) for name, mask in seen.items()}
        broken = {name: value.masked_fill(hidden[name], torch.nan) for name, value in values.items()}
        again = kind().visible(Tokens(broken), seeded(0))
        assert all(seen[name].equal(again[name]) for name in seen)

    def test_the_docstring_says_what_it_sees_and_predicts(self, kind):
        words = inspect.cleandoc(kind.__doc__)
        assert "\n    sees " in words
        assert "\n    predicts " in words


# -- a new objective, outside the package -----------------------------------------------------------------------------


@pytest.fixture
def example(tmp_path, monkeypatch):
    """The README's file in a folder on the Python path; what it registers is taken back afterwards."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "goal_reaching.py").write_text(EXAMPLE[1])
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setattr(sys, "argv", ["uva"])
    before = registry()
    yield folder
    sys.modules.pop("goal_reaching", None)
    objective._REGISTRY.clear()
    objective._REGISTRY.update(before)


def config(tiny_data, tmp_path, goal):
    denoiser = {"class_path": "FlowMatching", "init_args": {"width": 16, "depth": 1}}
    path = tmp_path / "goal.yaml"
    settings = {
        "model": {
            "tokenizer": {"class_path": "LinearPatches", "init_args": {"channels": 8}},
            "transformer": {
                "class_path": "LatentTransformer",
                "init_args": {"width": 16, "heads": 2, "encoder_depth": 1, "decoder_depth": 1},
            },
            "objectives": {"policy": "RobotPolicy", "goal": goal},
            "heads": {
                "action": {
                    "class_path": "ActionHead",
                    "init_args": {"aggregator": "ConvFC", "denoiser": denoiser, "steps": 2},
                },
            },
        },
        "data": {
            "class_path": "PushT",
            "init_args": {"path": str(tiny_data.path), "window": {"frames": 2}, "batch_size": 8, "val_ratio": 0.2},
        },
        "trainer": {
            "max_steps": 2,
            "accelerator": "cpu",
            "default_root_dir": str(tmp_path / "run"),
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "limit_val_batches": 0,
            "callbacks": [{"class_path": "ModelCheckpoint", "init_args": {"every_n_train_steps": 1}}],
        },
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def trained(tmp_path):
    (checkpoint,) = (tmp_path / "run").glob("**/*.ckpt")
    return torch.load(checkpoint, weights_only=True)


def test_the_readmes_example_trains_by_its_class_path(example, tiny_data, tmp_path):
    goal = {"class_path": "goal_reaching.GoalReaching", "init_args": {"drop_goal": 0.2}}
    assert main(["fit", "--config", str(config(tiny_data, tmp_path, goal))]) == 0
    written = trained(tmp_path)
    assert written["global_step"] == 2
    assert "goal_reaching.GoalReaching" in written["config"]
    assert "drop_goal: 0.2" in written["config"]


def test_the_readmes_example_trains_by_its_name_when_a_package_offers_it(example, tiny_data, tmp_path):
    info = example / "juggling-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: juggling\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[uva_lightning.objectives]\ngoal = goal_reaching:GoalReaching\n")
    importlib.invalidate_caches()
    assert main(["fit", "--config", str(config(tiny_data, tmp_path, "GoalReaching"))]) == 0
    assert trained(tmp_path)["global_step"] == 2


def test_the_readmes_example_shows_the_goal_and_sometimes_drops_it(example):
    goal = importlib.import_module("goal_reaching").GoalReaching(drop_goal=0.5)
    many = Tokens({name: value[:1].expand(64, *value.shape[1:]) for name, value in tokens().items()})
    seen = goal.visible(many, seeded(0))
    shown = seen.video[:, -1].all(dim=1)
    assert 16 < shown.sum() < 48
    assert not seen.video[:, :-1].any()
    assert not seen.video[~shown].any()


def test_uvas_five_functions_are_registered():
    import_components()
    assert {"RobotPolicy", "VideoModel", "ForwardDynamics", "InverseDynamics", "PolicyPlanner"} <= set(registry())
