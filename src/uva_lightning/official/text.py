"""CLIP ViT-B/32, the text encoder of UVA: which tensors its file has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor

_LAYERS = 12
_BLOCK = (
    *("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "self_attn.out_proj"),
    *("layer_norm1", "mlp.fc1", "mlp.fc2", "layer_norm2"),
)
_WHOLE = ("weight", "bias")
POSITION_IDS = "embeddings.position_ids"
"""Tables 0, 1, 2 ... that old versions of transformers stored and newer ones make."""


def clip_names() -> Iterator[str]:
    """Give the names of the 398 tensors, as Hugging Face calls them."""
    yield from ("logit_scale", "text_projection.weight", "visual_projection.weight")
    yield from (f"text_model.embeddings.{table}_embedding.weight" for table in ("token", "position"))
    yield from (f"vision_model.embeddings.{part}" for part in ("class_embedding", "patch_embedding.weight"))
    yield "vision_model.embeddings.position_embedding.weight"
    yield from (f"text_model.final_layer_norm.{kind}" for kind in _WHOLE)
    yield from (f"vision_model.{norm}.{kind}" for norm in ("pre_layrnorm", "post_layernorm") for kind in _WHOLE)
    for tower in ("text_model", "vision_model"):
        for layer in range(_LAYERS):
            yield from (f"{tower}.encoder.layers.{layer}.{part}.{kind}" for part in _BLOCK for kind in _WHOLE)


def clip_tensors(state: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Take CLIP's tensors, without tables that are made anew.

    Args:
        state: Tensors under the names of Hugging Face; empty if there is no text encoder.
        width: Numbers of the embedding that the model takes; 0 if it is not known.

    Raises:
        ValueError: A tensor is missing, or the embedding has another width.
    """
    if not state:
        return {}
    names = list(clip_names())
    if missing := [name for name in names if name not in state]:
        raise ValueError(
            f"The text encoder lacks {len(missing)} of {len(names)} tensors, e.g. '{missing[0]}', expected CLIP "
            "ViT-B/32 (openai/clip-vit-base-patch32); give that one."
        )
    found = len(state["text_projection.weight"])
    if width and found != width:
        raise ValueError(f"The text encoder gives {found} numbers, the model takes {width}; this file is damaged.")
    return {name: state[name] for name in names}
