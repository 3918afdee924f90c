"""Gradients of the terms on the shared latent, the one tensor through which all of them reach the trunk."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, distributed

from uva_lightning.balancers.running import Served

_SIZE = 2.0**10  # of a loss while its gradient is taken: in float16 those of a small one would vanish


def gradients(served: Served, method: str) -> Iterator[Tensor]:
    """Give the gradient of each term on this process's rows of Z, f32[b, t, s, d], one after the other.

    They are those of the plain loss: a gradient scaler multiplies the sum of all terms, which comes later. Each costs
    a backward pass through the heads, not through the trunk.

    Args:
        served: Terms and latent.
        method: Name of the method, for the message.

    Raises:
        ValueError: The latent has no gradients, or a term does not depend on it.
    """
    if not served.latent.requires_grad:
        raise ValueError(
            f"{method} needs gradients on the latent, which has none: the trunk is frozen or gradients are switched "
            "off; train the trunk, or take a balancer that goes by losses alone, such as LossScale."
        )
    for key, mean, loss in zip(served.keys, served.means, served.losses, strict=True):
        exponent = torch.frexp(torch.nan_to_num(mean)).exponent.clamp(-60, 60)  # a power of two: no rounding
        scale = torch.ldexp(torch.full_like(mean, _SIZE), -exponent)
        found = None
        if loss.requires_grad:
            (found,) = torch.autograd.grad(loss * scale, served.latent, retain_graph=True, allow_unused=True)
        if found is None:
            raise ValueError(
                f"The term '{key[1]}' of objective '{key[0]}' does not depend on the latent, which {method} goes by; "
                "take a balancer that goes by losses alone, such as LossScale."
            )
        yield found.detach().float() / scale


def norms(served: Served, method: str) -> Tensor:
    """Norm of each term's gradient on Z, over the rows of all processes, f32[k]."""
    squares = torch.stack([gradient.square().sum() for gradient in gradients(served, method)])
    return _summed(squares).sqrt() / _processes()  # a loss is scaled for the average over the processes


def gramian(served: Served, method: str) -> Tensor:
    """Inner products of the terms' gradients on what all samples share, f64[k, k] on the CPU.

    Two terms of different objectives are computed from different rows of Z, so on Z itself their gradients never
    conflict. Those on a table that is added to every sample's Z, as the trunk's last layer does, do: they are the sums
    over the rows, here of all processes. Each is multiplied by share and weight, as it will be in the loss.
    """
    rows = [gradient.sum(dim=0).flatten() for gradient in gradients(served, method)]  # f32[t * s * d] each
    table = _summed(torch.stack(rows)).double() / _processes() * served.amounts[:, None]
    return (table @ table.T).cpu()


def _processes() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def _summed(values: Tensor) -> Tensor:
    if _processes() > 1:
        distributed.all_reduce(values)
    return values
