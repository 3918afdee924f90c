"""What a model sees at run time is what the objective showed on which it learnt what is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from uva_lightning.model.fitted import fit_together
from uva_lightning.objective import _REGISTRY, Objective
from uva_lightning.objectives.forward_dynamics import ForwardDynamics
from uva_lightning.objectives.inverse_dynamics import InverseDynamics
from uva_lightning.objectives.policy_planner import PolicyPlanner
from uva_lightning.objectives.robot_policy import RobotPolicy
from uva_lightning.objectives.video_model import VideoModel
from uva_lightning.types import Tokens, Visible
from uva_lightning.visibility import seen_when_asked

TOKENS = Tokens(
    {
        **{name: torch.zeros(1, 2, 9, 4) for name in ("past_video", "video", "past_wrist", "wrist")},
        "past_action": torch.zeros(1, 16, 2),
        "action": torch.zeros(1, 16, 2),
        "agent": torch.zeros(1, 2, 2),
    }
)
HISTORY = {"past_video", "past_wrist", "past_action", "agent"}
CAMERAS = ("video", "wrist")
ALL = [RobotPolicy(), InverseDynamics(), VideoModel(mask_ratio_min=0.0), ForwardDynamics(), PolicyPlanner()]
QUESTIONS = {
    "robot policy": ("action", (), HISTORY),
    "video model": ("video", (), HISTORY),
    "forward dynamics": ("video", ("action",), HISTORY | {"action"}),
    "inverse dynamics": ("action", CAMERAS, {"past_action", "agent", *CAMERAS}),
}


def shown(seen):
    partly = [name for name, flags in seen.items() if flags.any() and not flags.all()]
    assert partly == []
    return {name for name, flags in seen.items() if flags.all()}


@pytest.mark.parametrize("trained", [ALL, ALL[::-1], [], [PolicyPlanner()]])
@pytest.mark.parametrize("name", QUESTIONS)
def test_the_five_functions_see_what_the_paper_says(name, trained):
    asked, given, expected = QUESTIONS[name]
    assert shown(seen_when_asked(dict(enumerate(trained)), TOKENS, asked, given)) == expected


class Blind(Objective):
    """Act without proprioception, and now and then without the past actions.

    sees      history but proprioception
    predicts  action
    """

    predicts = ("action",)

    def visible(self, tokens, rng):
        seen = Visible.only(tokens, "history").hide("agent")
        seen.past_video[:, 0] = False
        if torch.rand((), generator=rng) < 0.5:
            seen.hide(*{"past_action"} & set(seen))
        return seen


del _REGISTRY["Blind"]  # not one of those that other tests go through


def test_what_an_objective_hides_stays_hidden_and_what_it_drops_is_shown():
    seen = seen_when_asked({"policy": Blind()}, TOKENS, "action")
    assert not seen.agent.any()
    assert seen.past_action.all()
    assert not seen.past_video[:, 0].any()
    assert seen.past_video[:, 1].all()
    both = {"policy": Blind(), "inverse": InverseDynamics(keeps=["past_wrist"])}
    assert shown(seen_when_asked(both, TOKENS, "action", CAMERAS)) == {
        "past_action",
        "past_wrist",
        "agent",
        *CAMERAS,
    }


def test_prediction_does_not_read_what_the_policy_never_saw(tiny_data, tiny_module):
    data = tiny_data()
    data.setup("fit")
    module = tiny_module(data.spec, objectives={"policy": Blind()}).eval()
    batch = next(iter(data.val_dataloader()))
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    moved = replace(batch, state={"agent": batch.state["agent"] + 100})
    with torch.no_grad():
        left, right = (module.predict_step(one, 0)["action"] for one in (batch, moved))
    torch.testing.assert_close(left, right)
