"""`uva ablate`: what the numbers say, and whether an earlier result holds."""

from __future__ import annotations

import copy
import json

import pytest

from uva_lightning.ablation.check import CLEAR, OPPOSITE, SAME, TURNED, UNKNOWN, report, reproduced, statements
from uva_lightning.ablation.page import grid
from uva_lightning.ablation.table import OVERALL, TRAINED, Cell, Column, as_json, columns, groups
from uva_lightning.metrics.comparison import HIGHER, LOWER
from uva_lightning.metrics.intervals import Interval


def result(**losses):
    every = {name: {"measure": name, "value": value, "sign": LOWER} for name, value in losses.items()}
    return {"losses": every, "functions": {"act": {"measure": "reward", "value": losses["a/x"] / 2, "sign": HIGHER}}}


RESULTS = {
    "all": {1: result(**{"a/x": 1.0, "a/y": 4.0, "b/y": 2.0}), 2: result(**{"a/x": 2.0, "a/y": 4.0, "b/y": 2.0})},
    "less": {1: result(**{"a/x": 2.0, "a/y": 8.0, "b/y": 1.0}), 2: result(**{"a/x": 8.0, "a/y": 4.0, "b/y": 1.0})},
}


def test_table_against_numbers_by_hand():
    found = {column.name: column for column in columns(RESULTS, {"all": ("a", "b"), "less": ("a",)})}
    # seed 1: a doubles, b halves: no change; seed 2: x quadruples, y stays, so a doubles; b halves
    assert found[OVERALL].cells["less"].values == pytest.approx((0.0, 0.0))
    assert found[TRAINED].cells["less"].values == pytest.approx((100.0, 100.0))
    assert found[TRAINED].ranks == []
    x = found["a/x"].cells["less"]
    assert (x.mean, x.gain) == (5.0, -3.5)  # gains are -1 and -6
    reach = 12.7062 * 5 / 2  # t of one degree of freedom times half the distance of two values
    assert x.gain_interval == pytest.approx((-3.5 - reach, -3.5 + reach), rel=1e-4)
    assert (found["b/y"].cells["less"].gain, found["b/y"].cells["less"].verdict) == (1.0, 1)
    assert found["b/y"].ranks == [["less"], ["all"]]
    assert found["act"].cells["less"].gain == 1.75
    assert found["a/x"].ranks == [["all", "less"]]
    assert json.loads(json.dumps(as_json(list(found.values()))))[2]["variants"]["less"]["values"] == [2.0, 8.0]


def test_one_seed_has_neither_intervals_nor_ranks():
    results = {name: {1: by_seed[1]} for name, by_seed in RESULTS.items()}
    found = columns(results, {"all": ("a", "b"), "less": ("a",)})
    assert all(cell.gain_interval is None for column in found for cell in column.cells.values())
    assert all(len(column.ranks) == 1 for column in found if column.ranked)


def test_a_loss_that_is_not_positive_has_no_ratio():
    results = copy.deepcopy(RESULTS)
    for by_seed in results.values():
        by_seed[1]["losses"]["b/y"]["value"] = -1.0
    overall = columns(results, {"all": ("a", "b"), "less": ("a",)})[0]
    assert overall.cells["less"].values[1] == pytest.approx(100 * (2**0.5 - 1))  # a doubles, b counts as unchanged


def test_ranks_are_shared_where_intervals_overlap_with_the_best_of_the_rank():
    gains = {
        "c": (1.0, Interval(0.5, 1.5)),
        "a": (3.0, Interval(2.0, 4.0)),
        "b": (1.6, Interval(1.2, 2.1)),
        "d": (0.4, Interval(0.1, 0.6)),
        "e": (-1.0, None),
    }
    assert groups(gains) == [["a", "b"], ["c", "d", "e"]]


def column(name, **gains):
    made = {v: Cell((0.0, 0.0), sum(g) / 2, None, Interval(*g)) for v, g in gains.items()}
    return Column(name, "summary", "", HIGHER, made)


def content(*found, **others):
    base = {"steps": 2, "seeds": [1], "windows": 8, "starts": 1, "config": {}, "measures": as_json(list(found))}
    return base | others


def test_check_says_which_statements_hold():
    shipped = content(
        column(OVERALL, all=(0, 0), up=(1, 2), down=(-2, -1), near=(0.5, 0.9)), column("x", all=(0, 0), up=(1, 2))
    )
    assert {s.verdict for s in statements(shipped, shipped)} == {CLEAR}
    assert reproduced(statements(shipped, shipped))
    new = content(
        column(OVERALL, all=(0, 0), up=(0.4, 1), down=(-3, 1), near=(0.3, 1.2)),
        column("x", all=(0, 0), up=(-2, -1)),
        steps=3,
    )
    found = {(s.measure, s.better, s.worse): s.verdict for s in statements(shipped, new)}
    assert found[OVERALL, "up", "all"] == CLEAR
    assert found[OVERALL, "all", "down"] == SAME
    assert found[OVERALL, "up", "near"] == TURNED
    assert found["x", "up", "all"] == OPPOSITE
    assert not reproduced(statements(shipped, new))
    said = report(statements(shipped, new), shipped, new)
    assert "steps is 3 now, it was 2" in said
    assert "opposite: x: up better than all" in said
    assert "NOT reproduced" in said
    missing = content(column(OVERALL, all=(0, 0)))
    assert {s.verdict for s in statements(shipped, missing)} == {UNKNOWN}
    assert not reproduced(statements(shipped, missing))


def test_grid_is_aligned():
    assert grid(["a", "long"], [["value", "b"]]) == "| a     | long |\n| ----- | ---- |\n| value | b    |\n"
