"""Weights from elsewhere: refuse what does not fit instead of loading half of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def check_weights(state: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], what: str, instead: str) -> None:
    """Compare names and shapes with what a model has.

    Args:
        state: Tensors by name.
        expected: Shapes by name.
        what: What the weights should be, for the message.
        instead: What to give instead, for the message.

    Raises:
        ValueError: A tensor is missing, unknown or of another shape; says how many, with an example.
    """
    missing = [name for name in expected if name not in state]
    unknown = [name for name in state if name not in expected]
    shaped = [name for name, shape in expected.items() if name in state and tuple(state[name].shape) != tuple(shape)]
    if not (missing or unknown or shaped):
        return
    example = (shaped + missing + unknown)[0]
    found = f"has shape {list(state[example].shape)}" if example in state else "is missing"
    wanted = f"expected {list(expected[example])}" if example in expected else "expected no such tensor"
    raise ValueError(
        f"These are not the weights of {what}: of {len(expected)} tensors {len(missing)} are missing and {len(shaped)} "
        f"have another shape, and {len(unknown)} are unknown, e.g. '{example}' {found}, {wanted}; {instead}."
    )
