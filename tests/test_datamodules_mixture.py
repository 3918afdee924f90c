"""Several data sets as one: in which proportions and order they come, and what a batch of them holds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import mixtures
import numpy as np
import pytest
import torch

from uva_lightning.datamodules.endless import EachEpisode, EachWindow
from uva_lightning.datamodules.mixture import Mixture
from uva_lightning.datamodules.mixture_batches import HeldOutSampler, MixtureBatchSampler, MixtureOrder
from uva_lightning.datamodules.reading import Reading, Streaming
from uva_lightning.datamodules.windows import Window

SIZES = {"arm": 75, "plane": 114, "people": 22}
SHARES = {"arm": 0.5, "plane": 0.2, "people": 0.3}


def order(batch_size=24, shares=SHARES):
    orders = {name: EachWindow(size, 42, number) for number, (name, size) in enumerate(SIZES.items())}
    return MixtureOrder(orders, shares, batch_size, 42)


def ready(**options):
    data = mixtures.mixture(**options)
    data.setup("fit")
    return data


@pytest.mark.parametrize("world", [1, 2, 4])
def test_every_process_has_every_set_in_its_share(world):
    samplers = [MixtureBatchSampler(order(), 50, int, rank, world) for rank in range(world)]
    batches = [sampler.share(number) for sampler in samplers for number in range(50)]
    shares = [{name: len(rows) for name, rows in batch.items()} for batch in batches]
    for share in shares:
        assert sum(share.values()) == 24 // world
        for name, part in SHARES.items():
            assert abs(share.get(name, 0) - part * 24 / world) <= 2
    for name, part in SHARES.items():
        assert sum(share.get(name, 0) for share in shares) == pytest.approx(50 * 24 * part, abs=1)


@pytest.mark.parametrize("world", [2, 4])
def test_the_whole_batch_does_not_depend_on_the_number_of_processes(world):
    for number in (0, 5, 31):
        (alone,) = [MixtureBatchSampler(order(), 50, int).share(number)]
        parts = [MixtureBatchSampler(order(), 50, int, rank, world).share(number) for rank in range(world)]
        for name, rows in alone.items():
            mine = [part[name] for part in parts if name in part]
            assert torch.cat([part.windows for part in mine]).equal(rows.windows)
            assert torch.cat([part.uniform(1, 2) for part in mine]).equal(rows.uniform(1, 2))


def test_a_set_shows_all_of_itself_before_it_shows_anything_again():
    seen = Counter()
    batches = 0
    while sum(seen.values()) < 22 * 3:
        seen.update(order()(batches, 0, 24).get("people").windows.tolist())
        batches += 1
    assert set(seen) == set(range(22))
    assert max(seen.values()) - min(seen.values()) <= 1


def test_a_resume_goes_on_where_it_stood():
    whole = list(MixtureBatchSampler(order(), 12, lambda: 0))
    rest = list(MixtureBatchSampler(order(), 12, lambda: 7))
    for one, other in zip(whole[7:], rest, strict=False):
        assert {name: rows.windows.tolist() for name, rows in one.items()} == {
            name: rows.windows.tolist() for name, rows in other.items()
        }


def test_episodes_count_alike_whatever_their_length():
    episodes = np.array([0] * 5 + [1] * 50 + [7] * 500)
    drawn = EachEpisode(episodes, 3)(np.arange(3000))
    assert np.bincount(episodes[drawn])[[0, 1, 7]].tolist() == [1000] * 3
    assert len(set(drawn[episodes[drawn] == 7].tolist())) > 400
    again = EachEpisode(episodes, 3)(np.array([2999, 5, 1500]))
    assert again.tolist() == drawn[[2999, 5, 1500]].tolist()


def test_shares_are_by_size_unless_told_otherwise():
    assert ready().shares == pytest.approx({name: size / 211 for name, size in SIZES.items()})
    assert ready(by="episode").shares == pytest.approx({"arm": 3 / 6, "plane": 2 / 6, "people": 1 / 6})
    roots = {name: size**0.5 for name, size in SIZES.items()}
    assert ready(temperature=2).shares == pytest.approx({name: r / sum(roots.values()) for name, r in roots.items()})
    assert ready(weights={"arm": 3, "plane": 1, "people": 0}).shares == {"arm": 0.75, "plane": 0.25, "people": 0.0}


def test_a_batch_holds_what_each_set_has_and_nothing_else():
    data = ready(weights={"arm": 1, "plane": 1, "people": 1})
    (batch, *_) = data.train_dataloader()
    rows = data._sampler.share(0)
    arm, plane, people = ((batch.source == number) for number in range(3))
    assert [int(part.sum()) for part in (arm, plane, people)] == [4, 4, 4]
    own = data.sets["plane"].training()[rows["plane"]]
    assert batch.video["front"][plane].equal(own.video["top"]), "resized to 24 px from 48"
    assert own.video["top"].shape[-2] == 24
    assert batch.action[plane][..., :2].equal(own.action)
    assert not batch.action[plane][..., 2:].any()
    assert batch.state["eef"][plane].equal(own.state["eef"])
    assert not batch.video["wrist"][plane | people].any()
    there = {name: flags.tolist() for name, flags in batch.present.items()}
    assert there["video"] == [True] * 12
    assert there["wrist"] == there["grip"] == arm.tolist()
    assert there["action"] == there["eef"] == (arm | plane).tolist()


def test_a_batch_of_latents_holds_zeros_for_a_camera_that_a_set_lacks():
    data = ready(online=False)
    data.cache(lambda frames: frames.float().mean(dim=(1, 2))[:, None])  # [n, 1, 3]
    (batch, *_) = data.train_dataloader()
    assert not batch.video
    assert batch.latents["front"].shape == batch.latents["wrist"].shape == (12, 4, 1, 3)
    assert batch.latents["front"].all()
    assert batch.latents["wrist"].flatten(1).any(dim=1).equal(batch.source == 0)


def test_each_validation_batch_is_of_one_set_and_none_is_left_out():
    data = ready()
    seen = Counter()
    for batch in data.val_dataloader():
        (number,) = set(batch.source.tolist())
        seen[list(data.sets)[number]] += len(batch)
    assert seen == {"arm": 25, "plane": 17, "people": 37}
    first = [next(iter(rows)) for rows in HeldOutSampler(SIZES, 12).batches[:3]]
    assert set(first) == set(SIZES), "a limit on the batches leaves no set out"


def test_each_set_keeps_its_rate_and_its_own_face():
    data = Mixture(mixtures.sets(arm=Window(2, every=2)), cameras=mixtures.CAMERAS, image_size=24)
    assert {name: part.spec.rate_hz for name, part in data.spec.sets.items()} == {"arm": 10, "plane": 10, "people": 5}
    assert data.spec.cameras == ("front", "wrist")
    assert (data.spec.action_dim, dict(data.spec.state_dims)) == (5, {"eef": 3, "grip": 1})
    assert data.chosen("plane") is data.sets["plane"]
    with pytest.raises(ValueError, match="No data set is named, expected one of arm, plane, people"):
        data.chosen()


def broken(change):
    class Other(mixtures.Plane):
        facts = replace(mixtures.Plane.facts, **change)

    return {**mixtures.sets(), "plane": Other("plane", window=mixtures.WINDOW, encoding=mixtures.Encoding(online=True))}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"weights": {"arm": 1, "plane": 1, "persons": 1}}, r"names \['arm', 'persons', 'plane'\]"),
        ({"weights": {"arm": 1, "plane": 1}}, "name each once"),
        ({"weights": {"arm": -1, "plane": 1, "people": 1}}, "not negative"),
        ({"weights": {"arm": 0, "plane": 0, "people": 0}}, "positive sum"),
        ({"weights": {"arm": 1, "plane": 1, "people": 1}, "temperature": 2}, "expected one of them"),
        ({"temperature": 0}, "temperature is 0, expected a positive number"),
        ({"by": "frame"}, "expected window or episode"),
        ({"image_size": None}, r"24 px \(arm\), 48 px \(plane\).*data.image_size=48"),
        ({"cameras": {}}, r"'plane' has the cameras \['top'\], expected 'front'.*data.cameras.plane: \{top: front\}"),
        ({"cameras": {"planes": {}}}, "names the data sets"),
        ({"cameras": {"arm": {"side": "front"}}}, r"data.cameras.arm names \['side'\]"),
        ({"cameras": {**mixtures.CAMERAS, "arm": {"wrist": "front"}}}, "calls two of"),
        ({"sets": {}}, "no data sets"),
        (
            {"sets": {"a": mixtures.Arm("arm", reading=Reading(streaming=Streaming()))}},
            r"reading.streaming is set in \['a'\], but a mixture draws from anywhere",
        ),
        ({"sets": {"a/b": mixtures.Arm("arm")}}, "expected a name without"),
        ({"sets": {"a": mixtures.Arm("arm"), "b": mixtures.Arm("arm")}}, "'a' and 'b' are the same data set"),
        ({"sets": mixtures.sets(plane=Window(4))}, "'plane' has frames 4, expected 2 as 'arm'"),
        ({"sets": mixtures.sets(plane=Window(2, horizon=8))}, "'plane' has horizon 8, expected 16 as 'arm'"),
        ({"sets": mixtures.sets(plane=Window(2, past_action=True))}, "past_action True, expected False"),
        ({"sets": broken({"state_dims": {"eef": 2}})}, r"'eef' is 2 wide.*data.states.plane: \{eef: plane_eef\}"),
        ({"sets": {**mixtures.sets(), "arm": mixtures.Arm("arm", window=Window(2))}}, "encoding.online is true in"),
    ],
)
def test_what_cannot_be_mixed_is_refused(options, words):
    defaults = {"sets": mixtures.sets(), "cameras": mixtures.CAMERAS, "image_size": 24}
    with pytest.raises(ValueError, match=words):
        Mixture(**{**defaults, **options})


def test_entries_of_one_name_and_two_widths_can_be_told_apart():
    data = Mixture(
        broken({"state_dims": {"eef": 2}}),
        cameras=mixtures.CAMERAS,
        image_size=24,
        states={"plane": {"eef": "plane_eef"}},
    )
    assert dict(data.spec.state_dims) == {"eef": 3, "grip": 1, "plane_eef": 2}


def test_a_batch_must_divide_among_the_processes_and_fit_into_the_data():
    with pytest.raises(ValueError, match="batch_size is 24 over 5 processes"):
        MixtureBatchSampler(order(), 1, int, 0, 5)
    with pytest.raises(ValueError, match="211 training windows, fewer than batch_size=500"):
        ready(batch_size=500).train_dataloader()
