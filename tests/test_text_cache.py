"""Embeddings kept in a file; that they are CLIP's is tested in test_text.py."""

from __future__ import annotations

from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import save_file

from uva_lightning.datamodules.instructions import CachedInstructions, RandomInstructions
from uva_lightning.model.text_cache import InstructionCache, _load, _save
from uva_lightning.model.text_weights import text_shapes
from uva_lightning.parity.naming import normal

SENTENCES = ("push the T onto the target", "close the drawer", "Öffne die Tür\n«jetzt»")


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "texts/instructions.safetensors"
    _save(path, {sentence: normal(sentence, (512,)) for sentence in SENTENCES}, "a" * 64)
    return path


def test_what_is_stored_needs_no_weights(file):
    wanted = [SENTENCES[2], SENTENCES[0], SENTENCES[2]]
    embedded = InstructionCache(file)(wanted)
    assert embedded.dtype == torch.float32
    assert embedded.equal(torch.stack([normal(sentence, (512,)) for sentence in wanted]))
    assert InstructionCache(file, weights=file.parent / "not here")(wanted).equal(embedded)
    assert InstructionCache(file)([]).shape == (0, 512)


def test_nothing_is_left_beside_the_file(file):
    assert list(file.parent.iterdir()) == [file]


def test_what_is_not_stored_needs_weights(file):
    with pytest.raises(
        ValueError, match=r"no embedding of 1 instructions, e\.g\. 'open it', .* path of CLIP's weights"
    ):
        InstructionCache(file)([*SENTENCES, "open it"])
    with pytest.raises(ValueError, match="no embedding of 3 instructions"):
        InstructionCache(file.with_name("new.safetensors"))(SENTENCES)


@pytest.mark.skipif(find_spec("open_clip") is not None, reason="open_clip is installed")
def test_without_open_clip_the_extra_is_named(file):
    with pytest.raises(ImportError, match=r"open_clip is not installed; run: pip install 'uva_lightning\[text\]'"):
        InstructionCache(file, weights=file.parent)(["open it"])


def test_a_data_set_reads_the_file_and_lets_clip_embed_the_rest(file):
    data = CachedInstructions(file, weights=file.parent / "not here")
    assert data.embed(SENTENCES).equal(InstructionCache(file)(SENTENCES))
    with pytest.raises((ImportError, ValueError), match=r"open_clip is not installed|not here does not exist"):
        data.embed(["open it"])
    with pytest.raises(ValueError, match="both missing and weights"):
        CachedInstructions(file, RandomInstructions(), file.parent)


class TestADamagedFile:
    def test_cut_short(self, file):
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ValueError, match=r"instructions\.safetensors is damaged .* delete it"):
            InstructionCache(file)(SENTENCES)

    def test_a_changed_number(self, file):
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)
        with pytest.raises(ValueError, match="is damaged .its digest does not fit"):
            InstructionCache(file)(SENTENCES)

    def test_another_sentence(self, file):
        file.write_bytes(file.read_bytes().replace(b"close the drawer", b"close the window"))
        with pytest.raises(ValueError, match="is damaged .its digest does not fit"):
            InstructionCache(file)(SENTENCES)

    def test_something_else(self, file):
        save_file({"embeddings": torch.zeros(3, 512)}, file)
        with pytest.raises(ValueError, match="has the format 'none', expected 'uva_lightning instructions 1'"):
            InstructionCache(file)(SENTENCES)


@pytest.mark.slow
def test_embeddings_of_another_encoder_are_refused(file, tmp_path):
    save_file(
        {name: torch.zeros(shape, dtype=torch.float16) for name, shape in text_shapes().items()},
        tmp_path / "w.safetensors",
    )
    with pytest.raises(
        ValueError, match=r"embeddings of the encoder aaaaaaaaaaaa, expected [0-9a-f]{12}, that of .*/w\.safetensors"
    ):
        InstructionCache(file, weights=tmp_path / "w.safetensors")(SENTENCES)
    assert _load(file)[1] == "a" * 64
