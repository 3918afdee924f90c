"""Imagined frames become films and contact sheets."""

import av
import numpy as np
import pytest
from PIL import Image

from uva_lightning.policy.films import contact_sheet, write_films
from uva_lightning.types import DataSpec

SPEC = DataSpec(("top",), 32, 2, {}, 10.0, frames=4)


@pytest.mark.parametrize("environments", [None, 2])
def test_films_and_a_sheet_are_written(tmp_path, environments):
    shape = (4, 32, 32, 3) if environments is None else (environments, 4, 32, 32, 3)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    files = write_films(tmp_path / "new", {"top": frames}, SPEC)
    count = environments or 1
    assert [file.name for file in files] == [*(f"top_{number}.mp4" for number in range(count)), "top.png"]
    with av.open(str(files[0])) as film:
        assert len(list(film.decode(video=0))) == 4
        assert film.streams.video[0].average_rate == 2.5  # a frame every 4 steps at 10 Hz
    sheet = np.asarray(Image.open(files[-1]))
    assert sheet.shape == (count * 260 - 4, 4 * 260 - 4, 3)


def test_a_sheet_has_a_row_per_film():
    films = np.zeros((2, 3, 256, 256, 3), np.uint8)
    films[1, 2] = 7
    sheet = contact_sheet(films)
    assert (sheet[260:, 520:] == 7).all()
    assert (sheet[:256, :256] == 0).all()
    assert (sheet[256:260] == 255).all()
