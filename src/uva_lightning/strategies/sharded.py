"""Tensors of which each process holds a part, and modules made of them (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(value: Tensor) -> Tensor:
    """Put a tensor together from the parts of all processes, which must all ask for it; others stay as they are."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def own(value: Tensor) -> Tensor:
    """Give the part that this process holds, in the same memory; whole tensors stay as they are."""
    return value.to_local() if isinstance(value, DTensor) else value


def like(value: Tensor, model: Tensor) -> Tensor:
    """Cut a whole tensor, which every process has, as another one is cut."""
    if not isinstance(model, DTensor) or isinstance(value, DTensor):
        return value
    value = value.to(model.device)
    return distribute_tensor(value, model.device_mesh, model.placements, src_data_rank=None)


def put_together(state: Any, keep: bool) -> Any:
    """Put all tensors in nested mappings and lists together on the CPU.

    Args:
        state: Of a module or an optimizer; all processes must have the same names in it.
        keep: Whether this process keeps the tensors; the others help and get None in their places.
    """
    if isinstance(state, Mapping):
        return {name: put_together(value, keep) for name, value in state.items()}
    if isinstance(state, list):
        return [put_together(value, keep) for value in state]
    if not isinstance(state, DTensor):
        return state
    value = whole(state.detach())
    return value.cpu() if keep else None


@contextmanager
def whole_weights(module: nn.Module) -> Iterator[None]:
    """Let every process hold all weights for a while, so that one of them can use the module without the others.

    All processes must enter and leave. A module that is not cut is left alone. The weights must not be changed.
    """
    parts = [part for part in module.modules() if isinstance(part, FSDPModule)]
    try:
        for part in parts:
            part.set_reshard_after_forward(False, recurse=False)
            part.unshard()
        yield
    finally:
        for part in parts:
            part.set_reshard_after_forward(True, recurse=False)
            part.reshard()


def is_cut(module: nn.Module) -> bool:
    """Tell whether each process holds a part of this module's weights."""
    return any(isinstance(part, FSDPModule) for part in module.modules())


def assign(target: Tensor, value: Tensor) -> None:
    """Copy a whole tensor, which every process has, into one that may be cut."""
    with torch.no_grad():
        target.copy_(like(value.to(target.dtype), target))
