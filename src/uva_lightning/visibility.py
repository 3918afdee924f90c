"""What a model may see at run time: what it saw in training, by the objective on which it learnt what is asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

import torch

from uva_lightning.draws import seeded
from uva_lightning.objective import Objective
from uva_lightning.types import Tokens, Visible

DRAWS = 8
"""How often an objective is asked: what it hides now and then only, as a dropout of history does, is shown in use."""


def seen_when_asked(
    objectives: Mapping[str, Objective], tokens: Tokens, asked: str, given: Collection[str] = ()
) -> Visible:
    """Find what is visible where a model is asked for a modality.

    Of the future, what is given and nothing else; of the history, what the first objective showed that predicts
    ``asked`` from all of what is given. Without one: all of the history, in which frames that are given hide their past
    (UVA section 3.6).

    Args:
        objectives: Those that the model was trained on, by name.
        tokens: Samples of the model.
        asked: The modality.
        given: Modalities of the future that are known.

    Returns:
        The same for each sample of ``tokens``.
    """
    one = tokens.rows(slice(0, 1))
    return _of_one(objectives.values(), one, asked, given).rows(torch.zeros(tokens.batch_size, dtype=torch.int64))


def _of_one(objectives: Iterable[Objective], tokens: Tokens, asked: str, given: Collection[str]) -> Visible:
    future = tokens.future & set(tokens)
    for objective in objectives:
        if asked not in objective.predicts:
            continue
        draws = [objective.visible(tokens, seeded(number)) for number in range(DRAWS)]
        if {name for name in future if all(seen[name].all() for seen in draws)} == set(given):
            shown = {name: torch.stack([seen[name] for seen in draws]).any(dim=0) for name in draws[0]}
            return Visible(shown).hide(*(future - set(given)))
    past = (f"past_{camera}" for camera in tokens.cameras if camera in given)
    return Visible.only(tokens, "history", *given).hide(*past)
