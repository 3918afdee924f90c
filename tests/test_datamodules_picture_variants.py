"""Augmented latents that are computed once: which there are, which a window shows, and when they are the same again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from uva_lightning.datamodules.augment import Augmentation
from uva_lightning.datamodules.picture_changes import Blur, ColourJitter, Crop, Grey
from uva_lightning.datamodules.picture_variants import PictureVariants
from uva_lightning.datamodules.pusht import PushTMirror
from uva_lightning.datamodules.reading import Encoding
from uva_lightning.datamodules.rows import Rows

JITTER = Augmentation([ColourJitter(1.0, 0.3, 0.3, 0.3, 0.1), Crop(0.5)])
STEPS = 60
"""Steps of an episode of ``tiny_data``."""


def mean_colour(frames):
    """A tokenizer of one token: u8[n, H, W, 3] to f32[n, 1, 3]."""
    return frames.float().mean(dim=(-3, -2))[..., None, :]


def ready(tiny_data, **options):
    data = tiny_data(**options)
    data.setup("fit")
    return data


def cached(tiny_data, **options):
    data = ready(tiny_data, augment=JITTER, encoding=Encoding(variants=2), **options)
    data.cache(mean_colour)
    return data


@pytest.mark.parametrize("mirror", [None, PushTMirror()])
def test_every_frame_is_encoded_as_recorded_and_under_each_draw(tiny_data, mirror):
    data = cached(tiny_data, symmetry=mirror)
    store, latents = data.store, data.latents["top"].values
    assert latents.shape == (3 if mirror is None else 6, store.steps, 1, 3)
    for episode in (0, 4, 5):  # blocks of frames that are encoded together begin and end within episodes
        steps = slice(episode * STEPS, (episode + 1) * STEPS)
        frames = torch.from_numpy(store.video["top"][steps])
        for draw in range(3):
            for mirrored in range(1 if mirror is None else 2):
                shown = mirror.frames(frames) if mirrored else frames
                shown = JITTER.episode(shown, data.seed, episode, 2 * mirrored + draw) if draw else shown
                assert latents[3 * mirrored + draw, steps].equal(mean_colour(shown).half())


def test_a_training_window_shows_one_draw_in_all_its_frames(tiny_data):
    data = cached(tiny_data)
    batches = data.train_dataloader().dataset
    rows = Rows(torch.arange(40), 1, 5, 0, 40)
    shown, seen = batches[rows].latents["top"], set()
    steps = torch.from_numpy(batches.windows.frame_index(rows.windows.numpy()))
    for sample in range(40):
        (draw,) = (d for d in range(3) if data.latents["top"].values[d, steps[sample]].equal(shown[sample]))
        seen.add(draw)
    assert seen == {1, 2}
    assert batches[rows].latents["top"].equal(shown)
    assert not batches[replace(rows, batch=6)].latents["top"].equal(shown)
    half = Rows(torch.arange(20, 40), 1, 5, 20, 40)
    assert batches[half].latents["top"].equal(shown[20:])


def test_evaluation_shows_the_frames_as_recorded(tiny_data):
    plain = ready(tiny_data)
    plain.cache(mean_colour)
    for ours, theirs in zip(cached(tiny_data).val_dataloader(), plain.val_dataloader(), strict=True):
        assert ours.latents["top"].equal(theirs.latents["top"])


def test_draws_are_chosen_equally_often_and_mirrored_ones_stay_mirrored():
    rows, mirrored = Rows(torch.arange(9000), 1, 0, 0, 9000), torch.arange(9000) % 2
    chosen = PictureVariants(PushTMirror(), JITTER, 3).choose(mirrored, rows)
    assert (chosen // 4).equal(mirrored)
    counts = (chosen % 4).bincount(minlength=4).tolist()
    assert counts[0] == 0
    assert min(counts[1:]) > 2800
    assert PictureVariants(PushTMirror(), JITTER, 3).choose(mirrored, None).equal(4 * mirrored)


def test_a_cache_is_read_again_for_the_same_draws_only(tiny_data, tmp_path):
    def refuse(frames):
        raise AssertionError("encoded again")

    kept = {"augment": JITTER, "encoding": Encoding(tmp_path, variants=2)}
    first, again = ready(tiny_data, **kept), ready(tiny_data, **kept)
    first.cache(mean_colour, "key")
    again.cache(refuse, "key")
    assert again.latents["top"].values.equal(first.latents["top"].values)
    for change in (
        {"augment": Augmentation([Grey(0.5), Blur()])},
        {"encoding": Encoding(tmp_path, variants=1)},
        {"augment": None, "encoding": Encoding(tmp_path)},
        {"seed": 1},
    ):
        with pytest.raises(AssertionError, match="encoded again"):
            ready(tiny_data, **{**kept, **change}).cache(refuse, "key")


def test_a_cache_of_recorded_frames_is_no_augmentation(tiny_data, tmp_path):
    with pytest.raises(ValueError, match=r"latents kept in .* as recorded; set data\.encoding\.variants=8 .*online=t"):
        tiny_data(augment=JITTER, encoding=Encoding(tmp_path))
    with pytest.raises(ValueError, match=r"encoding\.variants is 2 without data\.augment, expected 0"):
        tiny_data(encoding=Encoding(variants=2))
    assert tiny_data(augment=JITTER).encoding.online, "without variants pictures are encoded in every step"
    assert not tiny_data(augment=JITTER, encoding=Encoding(tmp_path, variants=2)).encoding.online
    assert not tiny_data().encoding.online
