"""How the model sees actions."""

from __future__ import annotations

import pytest
import torch

from uva_lightning.action_space import ActionSpace
from uva_lightning.model.fitted import fit_together
from uva_lightning.normalize import Limits
from uva_lightning.proprioception import Proprioception
from uva_lightning.types import Batch, DataSpec

STATE = {"agent": torch.tensor([[[1.0, 2.0], [100.0, 200.0]], [[0.0, 0.0], [-50.0, 10.0]]])}
MOTION = torch.tensor([[[1.0, 2.0], [3.0, -4.0]], [[0.5, 0.0], [-3.0, 4.0]]])
PLACES = MOTION + STATE["agent"][:, -1:]


def space_of(*batches, **options):
    space = ActionSpace(Limits(), **options)
    space.fit(batches)
    return space


def relative():
    return space_of(Batch(action=PLACES, state=STATE), relative_to="agent")


def test_actions_are_motions_from_the_latest_state():
    limits = Limits()
    limits.fit(MOTION.flatten(0, 1))
    assert torch.allclose(relative().encode(PLACES, STATE), limits.encode(MOTION), atol=1e-5)


def test_the_same_motion_elsewhere_is_the_same():
    space, elsewhere = relative(), {"agent": STATE["agent"] + 1000}
    here = space.encode(PLACES, STATE)
    assert torch.allclose(space.encode(MOTION + elsewhere["agent"][:, -1:], elsewhere), here, atol=1e-3)


def test_decode_undoes_encode():
    space, action = relative(), torch.randn(2, 2, 2) * 50
    assert torch.allclose(space.decode(space.encode(action, STATE), STATE), action, atol=1e-3)


def test_absolute_actions_do_not_depend_on_the_state():
    space = space_of(Batch(action=MOTION, state=STATE))
    assert space.encode(MOTION, STATE).equal(space.encode(MOTION, {}))
    assert torch.allclose(space.decode(space.encode(MOTION, {}), {}), MOTION, atol=1e-6)


@pytest.mark.parametrize("state", [{}, {"arm": torch.zeros(2, 2, 2)}, {"agent": torch.zeros(2, 2, 7)}])
def test_a_state_that_cannot_be_subtracted_is_named(state):
    with pytest.raises(ValueError, match="Actions of width 2 cannot be relative to 'agent'"):
        relative().encode(MOTION, state)


def test_the_state_makes_an_equal_one():
    space, other = relative(), ActionSpace(Limits(), relative_to="agent")
    other.load_state(space.state())
    assert other.fitted
    assert other.encode(MOTION, STATE).equal(space.encode(MOTION, STATE))


def test_batches_give_what_one_batch_gives():
    whole = space_of(Batch(action=PLACES, state=STATE), relative_to="agent", place=Limits())
    parts = [Batch(action=PLACES[i : i + 1], state={"agent": STATE["agent"][i : i + 1]}) for i in (0, 1)]
    split = space_of(*parts, relative_to="agent", place=Limits())
    assert all(value.equal(split.state()[name]) for name, value in whole.state().items())


def test_samples_without_actions_do_not_count():
    action = torch.cat([MOTION, torch.full((1, 2, 2), 1e6)])
    mixed = space_of(
        Batch(action=action, present={"action": torch.tensor([True, True, False])}),
        Batch(present={"video": torch.ones(4, dtype=torch.bool)}),
    )
    assert all(value.equal(mixed.state()[name]) for name, value in space_of(Batch(action=MOTION)).state().items())


def test_without_any_actions_it_stays_unfitted():
    assert not space_of(Batch(present={"video": torch.ones(4, dtype=torch.bool)})).fitted


def test_a_bad_action_is_named():
    with pytest.raises(ValueError, match="'action' has NaN or infinity 4 times"):
        space_of(Batch(action=MOTION), Batch(action=MOTION * torch.tensor([1.0, torch.nan])))


def test_one_pass_fits_actions_and_proprioception():
    spec = DataSpec(("top",), 96, 2, {"agent": 2, "arm": 1}, 10)
    space, proprioception = ActionSpace(Limits()), Proprioception().bind(spec)
    fit_together([space, proprioception], iter([Batch(action=PLACES, state=STATE)]))  # an iterator gives it once only
    assert space.fitted
    assert proprioception.normalizers["agent"].fitted
    assert not proprioception.normalizers["arm"].fitted, "no batch has it"
    again = proprioception.normalizers["agent"].state()
    proprioception.fit([Batch(state={"agent": STATE["agent"] * 9, "arm": torch.ones(2, 2, 1)})])
    assert proprioception.normalizers["agent"].state()["scale"].equal(again["scale"]), "was fitted already"
    assert proprioception.fitted
