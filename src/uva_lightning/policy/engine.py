"""What runs at each decision: transformer, heads and tokenizer of a trained model, as in training or faster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from uva_lightning.model.heads.base import ActionHead, Head
from uva_lightning.model.heads.network import DenoisingMLP
from uva_lightning.model.streams import Stream
from uva_lightning.model.tokenizers.base import Tokenizer
from uva_lightning.model.transformer import LatentTransformer
from uva_lightning.module import UVAModule
from uva_lightning.policy.graphs import Graphed, GraphedSampler, Recorder, cuda_graph
from uva_lightning.policy.packed import pack, packs
from uva_lightning.types import Tokens, Visible

Part = TypeVar("Part", bound=nn.Module)
PICTURE_AXES = 4
_PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Layers whose weights autocast casts at each use."""


class Engine:
    """The plain path: the model's own parts, as in training.

    Args:
        module: Trained model.
    """

    def __init__(self, module: UVAModule) -> None:
        self.module = module

    @property
    def transformer(self) -> Any:
        """Turns tokens and what is visible into Z [b, t, s, d]."""
        return self.module.transformer

    @property
    def tokenizer(self) -> Tokenizer:
        """Encodes and decodes frames."""
        return self.module.tokenizer

    def head(self, name: str) -> Head:
        """Give the head of a modality.

        Raises:
            ValueError: There is none.
        """
        return self.module.head(name)

    def encode(self, frames: Tensor) -> Tensor:
        """Encode u8[..., H, W, 3] to moments f16[..., s, m] on the model's device."""
        device = self.module.device
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            return self.tokenizer.encode(frames.to(device)).half()

    def decode(self, latents: Tensor, image_size: int) -> Tensor:
        """Decode f32[..., s, c] to u8[..., image_size, image_size, 3]."""
        with torch.inference_mode(), torch.autocast(self.module.device.type, enabled=False):
            return self.tokenizer.decode(latents.float(), image_size)


class FastEngine(Engine):
    """The same numbers within rounding, sooner: a snapshot of the model's weights.

    Weights of matrix products are cast to ``dtype`` once and not at each use, the autoencoder computes in it with
    channels last, and what hidden streams add to every token is computed once.

    Args:
        module: Trained model.
        dtype: Of the matrix products, as that of the autocast around it.
        compile: Compile transformer and denoising networks for fixed shapes, and on a GPU record all of a decision as
            CUDA graphs; the first call of each shape takes minutes. Not run on a GPU yet.
        recorder: Records what runs; on a GPU, where it is compiled, as CUDA graphs if not given.
    """

    def __init__(
        self, module: UVAModule, dtype: torch.dtype, compile: bool = False, recorder: Recorder | None = None
    ) -> None:
        super().__init__(module)
        if dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"dtype is {dtype}, expected torch.float32, torch.bfloat16 or torch.float16.")
        self._trunk = Trunk(snapshot(module.transformer, dtype))
        self._heads = {name: snapshot(cast(Head, head), dtype) for name, head in module.heads.items()}
        self._tokenizer = module.tokenizer.in_use(dtype)
        if compile:
            self._compile()
            recorder = recorder or (cuda_graph if module.device.type == "cuda" else None)
        elif packs(dtype, module.device):
            for part in (*self._trunk.blocks, *self._heads.values()):
                pack(part)
        self._encode: Callable[[Tensor], Tensor] = self._tokenizer.encode
        if recorder is not None:
            self._record(recorder)

    def _compile(self) -> None:
        self._trunk.compile()
        for head in self._heads.values():
            for part in head.denoiser.children():
                part.compile(dynamic=False)
                if isinstance(part, DenoisingMLP):
                    part.compile_step()

    def _record(self, recorder: Recorder) -> None:
        """Let transformer, heads and encoder be recorded: four launches for a decision, and little between them."""
        self._encode = Graphed(self._encode, recorder)
        self._trunk.record(recorder)
        for head in self._heads.values():
            head.denoiser.sample = GraphedSampler(head.denoiser.sample, recorder)  # type: ignore[method-assign]
            if isinstance(head, ActionHead):
                head.aggregate.forward = Graphed(head.aggregate.forward, recorder)  # type: ignore[method-assign,assignment]

    def encode(self, frames: Tensor) -> Tensor:
        """See the base class."""
        device = self.module.device
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            return self._encode(frames.to(device)).half()

    @property
    def transformer(self) -> Any:
        """See the base class."""
        return self._trunk

    @property
    def tokenizer(self) -> Tokenizer:
        """See the base class."""
        return self._tokenizer

    def head(self, name: str) -> Head:
        """See the base class."""
        return self._heads[name] if name in self._heads else self.module.head(name)


class Trunk:
    """Transformer that computes what it need not compute again only once.

    Attention is bidirectional: once a token changes, all features after the first block do. What stays is what comes
    before the sum of the streams: the share of a stream that is wholly hidden is a constant, and that of a stream that
    is what it was in the last call (history, actions and instruction in the rounds of a generation) is kept.

    Args:
        transformer: In evaluation, with weights that stay.
    """

    def __init__(self, transformer: LatentTransformer) -> None:
        self.inner = transformer
        self._run: Callable[..., Tensor] = self._rest
        self._hidden: dict[tuple[str, torch.dtype], Tensor] = {}
        self._last: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def streams(self) -> nn.ModuleDict:
        """Streams by modality."""
        return self.inner.streams

    @property
    def blocks(self) -> tuple[nn.Module, nn.Module]:
        """What most of the arithmetic is in."""
        return self.inner.encoder, self.inner.decoder

    def compile(self) -> None:
        """Compile for fixed shapes."""
        self._run = torch.compile(self._run, dynamic=False)

    def record(self, recorder: Recorder) -> None:
        """Record what comes after the shares of the streams; see ``Graphed``."""
        self._run = Graphed(self._run, recorder)

    def __call__(self, tokens: Tokens, seen: Visible) -> Tensor:
        """See ``LatentTransformer.forward``; tensors given before must not be changed in place."""
        prefixes = [name for name in self.streams if name not in self.inner.fused]
        shares = self._shares(tokens, seen)
        return self._run(*shares.values(), *(part[name] for name in prefixes for part in (tokens, seen)))

    def _rest(self, *values: Tensor) -> Tensor:
        """Fuse, encode and decode: of the shares of the streams, then values and visibility of each prefix."""
        fused = list(self.inner.fused)
        prefixes = [name for name in self.streams if name not in fused]
        shares, own = dict(zip(fused, values, strict=False)), values[len(fused) :]
        tokens, seen = Tokens(dict(zip(prefixes, own[::2], strict=True))), dict(zip(prefixes, own[1::2], strict=True))
        return self.inner.decode(self.inner.encode(tokens, Visible(seen), shares))

    def _shares(self, tokens: Tokens, seen: Visible) -> Mapping[str, Tensor]:
        shares = {}
        for name, stream in self.inner.fused.items():
            values, visible = tokens[name], seen[name]
            last = self._last.get(name)
            if last is not None and last[0] is values and last[1] is visible:
                shares[name] = last[2]
            elif not visible.any():
                shares[name] = self._constant(name, stream, values)
            else:
                shares[name] = stream(values, visible)
                self._last[name] = (values, visible, shares[name])
        return shares

    def _constant(self, name: str, stream: Stream, values: Tensor) -> Tensor:
        kind = torch.get_autocast_dtype(values.device.type)
        key = name, kind if torch.is_autocast_enabled(values.device.type) else values.dtype
        if key not in self._hidden:
            self._hidden[key] = stream.placeholder_share(1, values.shape[-1])
        return self._hidden[key].expand(len(values), -1, -1)


def snapshot(part: Part, dtype: torch.dtype) -> Part:
    """Copy a part for use: weights of matrix products in ``dtype``, all others shared with the original."""
    memo: dict[int, Any] = {id(parameter): parameter for parameter in part.parameters()}
    if dtype != torch.float32:
        for layer in part.modules():
            if isinstance(layer, _PRODUCTS):
                for parameter in layer.parameters(recurse=False):
                    pictures = parameter.ndim == PICTURE_AXES and isinstance(layer, nn.Conv2d)
                    order = torch.channels_last if pictures else torch.preserve_format
                    cast_once = parameter.detach().to(dtype, memory_format=order)
                    memo[id(parameter)] = nn.Parameter(cast_once, requires_grad=False)
    return deepcopy(part, memo).eval()


def native_dtype(device: torch.device) -> torch.dtype:
    """Give bfloat16 where the processor multiplies it natively, float32 otherwise."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    native = device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if native else torch.float32
