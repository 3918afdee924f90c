"""From physical units to the model's numbers and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from uva_lightning.normalize import ActionSpace, Columns, Identity, Limits, Standard

VALUES = torch.tensor([[0.0, 5.0, -1.0], [10.0, 5.0, 1.0], [4.0, 5.0, 3.0]])


def fitted(normalizer, values=VALUES):
    normalizer.fit(values)
    return normalizer


@pytest.mark.parametrize("kind", [Limits, Standard])
class TestBoth:
    def test_decode_undoes_encode(self, kind):
        normalizer, values = fitted(kind()), torch.randn(2, 7, 3) * 10
        assert torch.allclose(normalizer.decode(normalizer.encode(values)), values, atol=1e-5)

    def test_a_constant_dimension_becomes_zero_and_comes_back(self, kind):
        normalizer = fitted(kind())
        assert normalizer.encode(VALUES)[:, 1].tolist() == [0.0, 0.0, 0.0]
        assert normalizer.decode(normalizer.encode(VALUES))[:, 1].tolist() == [5.0, 5.0, 5.0]
        assert normalizer.encode(VALUES + 0.1)[:, 1] == pytest.approx(0.1, abs=1e-5), "kept in its own unit"

    def test_another_width_is_refused(self, kind):
        normalizer = fitted(kind())
        for verb in (normalizer.encode, normalizer.decode):
            with pytest.raises(ValueError, match="The values are 2 wide, expected 3 as fitted"):
                verb(torch.zeros(4, 2))

    def test_the_state_makes_an_equal_one(self, kind):
        normalizer, other = fitted(kind()), kind()
        assert not other.fitted
        other.load_state(normalizer.state())
        assert other.fitted
        assert other.encode(VALUES).equal(normalizer.encode(VALUES))


def test_limits_map_the_range_to_minus_one_and_one():
    encoded = fitted(Limits()).encode(VALUES)
    assert encoded[:, 0] == pytest.approx(torch.tensor([-1.0, 1.0, -0.2]).numpy())
    assert encoded[:, 2] == pytest.approx(torch.tensor([-1.0, 0.0, 1.0]).numpy())


def test_a_range_just_above_the_smallest_is_no_constant():
    values = torch.tensor([[0.0], [2e-4]])
    assert fitted(Limits(), values).encode(values).flatten().tolist() == pytest.approx([-1.0, 1.0])


def test_standard_gives_mean_zero_and_deviation_one():
    values = torch.randn(1000, 3) * torch.tensor([1.0, 20.0, 300.0]) + 7
    encoded = fitted(Standard(), values).encode(values)
    assert encoded.mean(dim=0) == pytest.approx(0.0, abs=1e-4)
    assert encoded.std(dim=0) == pytest.approx(1.0, abs=1e-4)


OFFICIAL = np.load(Path(__file__).parent / "fixtures/official/normalizers.npz")
"""Scale and offset of the official code for given numbers."""


@pytest.mark.parametrize(
    ("name", "data", "normalizer"),
    [
        ("limits_offset1", "data", Limits()),
        ("limits_offset0", "data", Limits(offset=False)),
        ("gaussian_offset1", "data", Standard()),
        ("gaussian_offset0", "data", Standard(offset=False)),
        ("abs_action10", "act10", Columns([3, 7], [Limits(smallest_range=1e-7), Identity()])),
    ],
)
def test_scale_and_offset_are_those_of_the_official_code(name, data, normalizer):
    values = torch.from_numpy(OFFICIAL[data])
    normalizer.fit(values)
    for part, number in normalizer.state().items():
        np.testing.assert_allclose(number, OFFICIAL[f"{name}/{part}"], rtol=1e-5, atol=1e-6)
    if f"{name}/normalized" in OFFICIAL:
        np.testing.assert_allclose(normalizer.encode(values), OFFICIAL[f"{name}/normalized"], rtol=1e-5, atol=2e-6)


def test_identity_changes_nothing():
    values = torch.randn(5, 3)
    assert fitted(Identity(), values).encode(values).equal(values)
    assert fitted(Identity(), values).decode(values).equal(values)


def test_mistakes_in_normalizers_are_told():
    with pytest.raises(ValueError, match=r"widths \[3\] for 2 parts, expected one positive width per part"):
        Columns([3], [Limits(), Identity()])
    with pytest.raises(ValueError, match=r"widths \[3, 7\], together 10, but the values are 3 wide"):
        fitted(Columns([3, 7], [Limits(), Identity()]))
    with pytest.raises(ValueError, match="smallest_range is 0"):
        Limits(smallest_range=0)


class TestActionSpace:
    state = {"agent": torch.tensor([[[1.0, 2.0], [100.0, 200.0]], [[0.0, 0.0], [-50.0, 10.0]]])}
    motion = torch.tensor([[[1.0, 2.0], [3.0, -4.0]], [[0.5, 0.0], [-3.0, 4.0]]])

    def relative(self):
        space = ActionSpace(Limits(), relative_to="agent")
        space.fit(self.motion + self.state["agent"][:, -1:], self.state)
        return space

    def test_actions_are_motions_from_the_latest_state(self):
        encoded = self.relative().encode(self.motion + self.state["agent"][:, -1:], self.state)
        assert torch.allclose(encoded, fitted(Limits(), self.motion.flatten(0, 1)).encode(self.motion), atol=1e-5)

    def test_the_same_motion_elsewhere_is_the_same(self):
        space, elsewhere = self.relative(), {"agent": self.state["agent"] + 1000}
        here = space.encode(self.motion + self.state["agent"][:, -1:], self.state)
        assert torch.allclose(space.encode(self.motion + elsewhere["agent"][:, -1:], elsewhere), here, atol=1e-3)

    def test_decode_undoes_encode(self):
        space, action = self.relative(), torch.randn(2, 2, 2) * 50
        assert torch.allclose(space.decode(space.encode(action, self.state), self.state), action, atol=1e-3)

    def test_absolute_actions_do_not_depend_on_the_state(self):
        space = ActionSpace(Limits())
        space.fit(self.motion, self.state)
        assert space.encode(self.motion, self.state).equal(space.encode(self.motion, {}))
        assert torch.allclose(space.decode(space.encode(self.motion, {}), {}), self.motion, atol=1e-6)

    @pytest.mark.parametrize("state", [{}, {"arm": torch.zeros(2, 2, 2)}, {"agent": torch.zeros(2, 2, 7)}])
    def test_a_state_that_cannot_be_subtracted_is_named(self, state):
        with pytest.raises(ValueError, match="Actions of width 2 cannot be relative to 'agent'"):
            self.relative().encode(self.motion, state)

    def test_the_state_makes_an_equal_one(self):
        space, other = self.relative(), ActionSpace(Limits(), relative_to="agent")
        other.load_state(space.state())
        assert other.fitted
        assert other.encode(self.motion, self.state).equal(space.encode(self.motion, self.state))
