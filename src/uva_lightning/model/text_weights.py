"""The text encoder of CLIP ViT-B/32: its tensors, under open_clip's names and under Hugging Face's."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from uva_lightning.model.weights import check_weights

VOCABULARY, CONTEXT, WIDTH, HEADS, LAYERS = 49408, 77, 512, 8, 12
"""Words, tokens of a sentence, and the sizes of the transformer."""

FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
"""Names under which Hugging Face and open_clip store weights in a folder, the safe format first."""

_HUGGING_FACE = "text_model."
# The rest of CLIP: its vision tower, the temperature, buffers, and numbers that OpenAI's own files have.
_BESIDE = (
    *("vision_model.", "visual_projection.", "visual.", "logit_scale", "logit_bias", "attn_mask"),
    *("text_model.embeddings.position_ids", "input_resolution", "context_length", "vocab_size"),
)
_INSTEAD = "give those of openai/clip-vit-base-patch32"


def text_shapes() -> dict[str, tuple[int, ...]]:
    """Give the shapes of the 149 tensors by open_clip's name."""
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (VOCABULARY, WIDTH),
        "positional_embedding": (CONTEXT, WIDTH),
        "ln_final.weight": (WIDTH,),
        "ln_final.bias": (WIDTH,),
        "text_projection": (WIDTH, WIDTH),
    }
    linear = {"attn.out_proj": (WIDTH, WIDTH), "mlp.c_fc": (4 * WIDTH, WIDTH), "mlp.c_proj": (WIDTH, 4 * WIDTH)}
    for block in (f"transformer.resblocks.{layer}" for layer in range(LAYERS)):
        shapes |= {f"{block}.attn.in_proj_weight": (3 * WIDTH, WIDTH), f"{block}.attn.in_proj_bias": (3 * WIDTH,)}
        for name, shape in linear.items():
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[:1]}
        shapes |= {f"{block}.{norm}.{kind}": (WIDTH,) for norm in ("ln_1", "ln_2") for kind in ("weight", "bias")}
    return shapes


def from_hugging_face(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of ``CLIPModel`` or ``CLIPTextModelWithProjection``; queries, keys and values are joined.

    Args:
        state: Tensors by Hugging Face's name; the vision tower may be among them.

    Returns:
        The text encoder's tensors by open_clip's name.

    Raises:
        ValueError: A tensor of the text encoder is missing, unknown or of another shape.
    """
    kept, shapes, sources = _text_only(state), text_shapes(), _sources()
    expected = {
        name: (shapes[ours][0] // len(names), *shapes[ours][1:]) for ours, names in sources.items() for name in names
    }
    check_weights(kept, expected, "CLIP ViT-B/32's text encoder under Hugging Face's names", _INSTEAD)
    joined = {ours: torch.cat([kept[name] for name in names]) for ours, names in sources.items()}
    return {**joined, "text_projection": joined["text_projection"].T.contiguous()}  # theirs multiplies from the left


def load_text_weights(path: Path | str) -> dict[str, Tensor]:
    """Read the text encoder from a file, without unpickling anything but tensors.

    Args:
        path: Safetensors file, or folder with one, of the whole CLIP or its text encoder, with names of Hugging Face
            or open_clip. PyTorch files are read too.

    Returns:
        f32 tensors by open_clip's name.

    Raises:
        ValueError: There is no such file, it cannot be read, or it holds other weights.
    """
    file = _find(Path(path))
    try:
        if file.suffix == ".safetensors":
            state = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{file} cannot be read as tensors ({error}), expected CLIP's weights; fetch it anew."
        ) from error
    state = (
        {name: value for name, value in state.items() if isinstance(value, Tensor)} if isinstance(state, dict) else {}
    )
    if any(name.startswith(_HUGGING_FACE) for name in state):
        weights = from_hugging_face(state)
    else:
        weights = _text_only(state)
        check_weights(weights, text_shapes(), "CLIP ViT-B/32's text encoder under open_clip's names", _INSTEAD)
    return {name: tensor.float() for name, tensor in weights.items()}


def fingerprint(weights: Mapping[str, Tensor]) -> str:
    """Name the weights: the same numbers give the same name, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def _find(path: Path) -> Path:
    if path.is_file():
        return path
    found = next((path / name for name in FILES if (path / name).is_file()), None)
    if found is None:
        state = f"has none of {', '.join(FILES)}" if path.is_dir() else "does not exist"
        raise ValueError(f"{path} {state}, expected CLIP's weights; {_INSTEAD}, as file or folder.")
    return found


def _text_only(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if not name.startswith(_BESIDE)}


@cache
def _sources() -> dict[str, tuple[str, ...]]:
    """Hugging Face's names of each open_clip tensor, to be joined along the first axis."""
    sources: dict[str, tuple[str, ...]] = {
        "token_embedding.weight": ("text_model.embeddings.token_embedding.weight",),
        "positional_embedding": ("text_model.embeddings.position_embedding.weight",),
        "text_projection": ("text_projection.weight",),
    }
    parts = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
    parts["attn.out_proj"] = "self_attn.out_proj"
    for kind in ("weight", "bias"):
        sources[f"ln_final.{kind}"] = (f"text_model.final_layer_norm.{kind}",)
        for layer in range(LAYERS):
            ours, theirs = f"transformer.resblocks.{layer}", f"text_model.encoder.layers.{layer}"
            sources |= {f"{ours}.{part}.{kind}": (f"{theirs}.{name}.{kind}",) for part, name in parts.items()}
            sources[f"{ours}.attn.in_proj_{kind}"] = tuple(f"{theirs}.self_attn.{x}_proj.{kind}" for x in "qkv")
    return sources
