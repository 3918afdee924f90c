"""CLIP's text encoder by open_clip, against transformers' with the same random weights of the real size."""

from __future__ import annotations

import copy
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch
from safetensors.torch import load_file, save_file

from uva_lightning.model.text import ClipText
from uva_lightning.model.text_cache import InstructionCache
from uva_lightning.model.text_weights import load_text_weights
from uva_lightning.parity.naming import fill, relative_error

pytestmark = [
    pytest.mark.text,
    pytest.mark.skipif(
        find_spec("open_clip") is None or find_spec("transformers") is None,
        reason="open_clip or transformers is not installed; `make test-text` brings both",
    ),
]

SENTENCES = (
    "KITCHEN SCENE3 turn on the stove and put the moka pot on it",
    "LIVING ROOM SCENE5 put the white mug on the left plate and put the yellow and white mug on the right plate",
    "push the T onto the target",
    "Don't drop Ben's cup (100 ml) \u2013 it's caf\u00e9-ware!",
    "",
)
END, OFFICIAL_LENGTH, TOLERANCE = 49407, 30, 1e-5


def write_model(folder, prefix="clip"):
    """Write transformers' model of the real size with weights drawn by name, strong enough for uneven attention."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    model = CLIPTextModelWithProjection(CLIPTextConfig(hidden_act="quick_gelu")).eval()
    for name, parameter in model.named_parameters():
        is_norm = "norm" in name and name.endswith("weight")
        parameter.data = fill(f"{prefix}/{name}", parameter.shape, 0.1, is_norm)
    model.save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("clip")


@pytest.fixture(scope="module")
def reference(folder):
    return write_model(folder)


@pytest.fixture(scope="module")
def encoder(folder, reference):
    return ClipText(folder)


def padded_by_transformers(tokens, length):
    """Pad as the official code does: up to 30 tokens, by repeating the end, with a mask."""
    ends = (tokens == END).int().argmax(dim=1, keepdim=True)
    used = torch.arange(length) <= ends
    return tokens[:, :length].masked_fill(~used, END), used.long()


@torch.no_grad()
def test_embeddings_are_those_of_transformers_with_the_official_padding(encoder, reference):
    embedded = encoder(SENTENCES)
    assert embedded.shape == (len(SENTENCES), 512)
    assert embedded.dtype == torch.float32
    ids, mask = padded_by_transformers(encoder.tokens(SENTENCES), OFFICIAL_LENGTH)
    expected = reference(input_ids=ids, attention_mask=mask).text_embeds
    assert relative_error(embedded, expected) <= TOLERANCE
    spread = torch.nn.functional.cosine_similarity(expected[:1], expected[1:])
    assert spread.max() < 0.9  # sentences differ, so that agreement means something
    assert (embedded.norm(dim=-1) - 1).abs().min() > 0.1  # not normalised


@torch.no_grad()
def test_padding_to_77_tokens_equals_padding_to_30(encoder):
    tokens = encoder.tokens(SENTENCES)
    assert tokens.shape == (len(SENTENCES), 77)
    assert (tokens[:, OFFICIAL_LENGTH:] == 0).all()
    short = copy.deepcopy(encoder._tower)
    short.attn_mask = short.attn_mask[:OFFICIAL_LENGTH, :OFFICIAL_LENGTH]
    assert relative_error(encoder(SENTENCES), short(tokens[:, :OFFICIAL_LENGTH])) <= TOLERANCE


@torch.no_grad()
def test_no_token_after_the_end_matters_and_every_one_before_does(encoder):
    tokens = encoder.tokens(SENTENCES[:1])
    end = int(tokens.argmax())
    for place, matters in ((end + 1, False), (76, False), (end - 1, True), (1, True)):
        changed = tokens.clone()
        changed[0, place] = 1234
        assert (relative_error(encoder._tower(changed), encoder._tower(tokens)) > TOLERANCE) == matters, place


def test_words_are_split_as_transformers_does(encoder):
    from open_clip.tokenizer import SimpleTokenizer
    from transformers import CLIPTokenizer

    words = SimpleTokenizer()  # both get the list of words that open_clip ships
    theirs = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    vocabulary = {theirs.get(word, word): number for word, number in words.encoder.items()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=list(words.bpe_ranks))
    for sentence in SENTENCES:
        ids = tokenizer(sentence)["input_ids"]
        assert encoder.tokens([sentence])[0, : len(ids)].tolist() == ids, sentence
    assert encoder.tokens(["a photo of a cat"])[0, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, END, 0]


def test_a_sentence_that_would_be_cut_is_refused(encoder):
    assert encoder.tokens(["go " * 75])[0, -1] == END
    with pytest.raises(ValueError, match="has 78 tokens, expected at most 77; shorten it"):
        encoder(["go " * 76])


def test_no_sentences_are_no_rows(encoder):
    assert encoder([]).shape == (0, 512)


def test_weights_under_open_clips_names_are_the_same_encoder(encoder, folder, tmp_path):
    import open_clip

    model = open_clip.create_model("ViT-B-32-quickgelu").eval()
    model.load_state_dict({**model.state_dict(), **load_text_weights(folder)})
    save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, tmp_path / "whole.safetensors")
    same = ClipText(tmp_path / "whole.safetensors")
    assert same.fingerprint == encoder.fingerprint
    assert same(SENTENCES).equal(encoder(SENTENCES))
    with torch.no_grad():
        assert relative_error(model.encode_text(encoder.tokens(SENTENCES)), encoder(SENTENCES)) <= TOLERANCE


class TestInstructionCache:
    def test_embeds_once_and_then_needs_neither_weights_nor_open_clip(self, encoder, folder, tmp_path):
        path = tmp_path / "instructions.safetensors"
        first = InstructionCache(path, folder)([SENTENCES[1], SENTENCES[2], SENTENCES[1]])
        assert first.equal(encoder(SENTENCES[1:3])[[0, 1, 0]])
        code = (
            "import sys; sys.modules['open_clip'] = None\n"  # importing it would fail
            "from uva_lightning.model.text_cache import InstructionCache\n"
            f"print(InstructionCache({str(path)!r})([{SENTENCES[2]!r}])[0].tolist())"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == str(first[1].tolist())

    def test_only_what_is_new_is_embedded(self, encoder, folder, tmp_path):
        path = tmp_path / "instructions.safetensors"
        cache, other = InstructionCache(path, folder), InstructionCache(path, folder)
        cache(SENTENCES[:1])
        other(SENTENCES[1:2])
        assert relative_error(cache(SENTENCES[:3]), encoder(SENTENCES[:3])) <= TOLERANCE
        assert len(load_file(path)["embeddings"]) == 3

    def test_another_encoder_is_not_mixed_in(self, folder, tmp_path):
        path, another = tmp_path / "instructions.safetensors", tmp_path / "another"
        InstructionCache(path, folder)(SENTENCES[:1])
        before = path.read_bytes()
        write_model(another, prefix="another")
        for wanted in (SENTENCES[:1], SENTENCES[:2]):
            with pytest.raises(ValueError, match="has embeddings of the encoder .* use the weights it was made with"):
                InstructionCache(path, another)(wanted)
        assert path.read_bytes() == before
