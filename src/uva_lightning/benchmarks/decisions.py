"""How long a policy takes to decide and to imagine, stage by stage."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from uva_lightning.policy.policy import UVAPolicy

MILLISECONDS = 1000.0
QUANTILES = (0.5, 0.95, 0.99)
ORDER = ("encode", "text", "trunk", "action head", "video head", "decode", "other", "total")
"""Stages in the order in which they run; the heads of further cameras come before ``other``."""
PAPER = {
    "encode": ("VAE image encoder", 40.0),
    "trunk": ("transformer, flash attention", 30.0),
    "action head": ("action diffusion, 16 steps", 15.0),
    "video head": ("video diffusion, 16 steps", 100.0),
    "total": ("policy, 16 steps", 95.0),
}
"""Milliseconds of the UVA paper, section 5.4; it names an NVIDIA L40 for its speeds in simulation."""
PAPER_DEVICE = "NVIDIA L40"


@dataclass
class Run:
    """Times of one policy.

    Args:
        what: For people.
        policy: What is measured.
        cold: ms by stage of the first call.
        warm: ms by stage of the calls that count.
        flops: Of one warm call; counted for the first run alone, as counting takes another call.
    """

    what: str
    policy: UVAPolicy
    cold: dict[str, float] = field(default_factory=dict)
    warm: list[dict[str, float]] = field(default_factory=list)
    flops: int = 0

    def stages(self) -> list[str]:
        """Names of the stages, in order."""
        found = {name for times in self.warm for name in times}
        heads = sorted(found - set(ORDER))
        return [name for name in (*ORDER[:-2], *heads, *ORDER[-2:]) if name in found]

    def quantiles(self, stage: str) -> NDArray[np.float64]:
        """p50, p95 and p99 of a stage in ms, f64[3]."""
        found: NDArray[np.float64] = np.quantile([times.get(stage, 0.0) for times in self.warm], QUANTILES)
        return found

    def described(self) -> dict[str, Any]:
        """Give the numbers for JSON."""
        named = {f"p{q * 100:.0f}": index for index, q in enumerate(QUANTILES)}
        return {
            "cold_ms": self.cold,
            "warm_ms": {
                stage: {name: float(self.quantiles(stage)[index]) for name, index in named.items()}
                for stage in self.stages()
            },
            "calls": len(self.warm),
            "flops": self.flops,
        }


class Scene:
    """Random observations of a number of environments, the same for every policy.

    Args:
        policy: Whose contract they keep.
        batch: Environments.
        instruction: Vector of an instruction, where the model hears one.
    """

    def __init__(self, policy: UVAPolicy, batch: int, instruction: NDArray[np.float32] | None) -> None:
        self.spec, self.batch, self.instruction = policy.spec, batch, instruction
        self._rng = np.random.default_rng(0)

    def begin(self, policies: Sequence[UVAPolicy]) -> None:
        """Reset the policies and fill their histories."""
        for policy in policies:
            policy.reset(self.instruction, seed=0)
        self.pass_time(policies, self.spec.horizon)

    def pass_time(self, policies: Sequence[UVAPolicy], steps: int) -> None:
        """Let them observe so many control steps."""
        for _ in range(steps):
            seen = self.observation()
            for policy in policies:
                policy.observe(seen)

    def observation(self) -> dict[str, Any]:
        """Draw one time step."""
        size = self.spec.image_size
        return {
            "video": {
                camera: self._rng.integers(0, 256, (self.batch, size, size, 3), dtype=np.uint8)
                for camera in self.spec.cameras
            },
            "state": {name: self._rng.normal(size=(self.batch, w)) for name, w in self.spec.state_dims.items()},
        }


def measure(
    runs: Sequence[Run], call: Callable[[UVAPolicy], object], scene: Scene, execute: int, repeats: Mapping[str, int]
) -> None:
    """Let policies decide in turns, each time after ``execute`` control steps, so that all meet the same machine.

    Args:
        runs: Policies.
        call: What they do.
        scene: Where.
        execute: Control steps between two decisions.
        repeats: Warm calls of each run, by its name.
    """
    policies = [run.policy for run in runs]
    scene.begin(policies)
    for run in runs:
        run.cold = _timed(run.policy, call)
    for number in range(max(repeats.values())):
        scene.pass_time(policies, execute)
        for run in runs:
            if number < repeats[run.what]:
                run.warm.append(_timed(run.policy, call))
    scene.pass_time(policies, execute)
    runs[0].flops = flops(lambda: call(policies[0]))


def flops(call: Callable[[], object]) -> int:
    """Count the FLOPs of matrix products and convolutions of a call."""
    own = {
        torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        torch.ops.mkldnn._linear_pointwise: _product,
    }
    with FlopCounterMode(display=False, custom_mapping=own) as counter:
        call()
    return int(counter.get_total_flops())


def _attention(query: Any, key: Any, value: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
    """FLOPs of attention on the CPU, which torch does not count; takes shapes."""
    return int(sdpa_flop_count(query, key, value))


def _product(x: Any, weight: Any, *rest: Any, out_shape: Any = None, **options: Any) -> int:
    """FLOPs of a packed linear layer, which torch does not count; takes shapes."""
    return 2 * math.prod(x) * int(weight[0])


def _timed(policy: UVAPolicy, call: Callable[[UVAPolicy], object]) -> dict[str, float]:
    policy.stages.take()
    policy.stages.synchronize = torch.cuda.is_available()
    start = time.perf_counter()
    call(policy)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    total = (time.perf_counter() - start) * MILLISECONDS
    times = {name: ms for name, ms in policy.timing.items() if name != "total"}
    return {**times, "other": max(0.0, total - sum(times.values())), "total": total}


def instruction_of(policy: UVAPolicy) -> NDArray[np.float32] | None:
    """Give a random vector where the model hears instructions; how long CLIP takes is not measured."""
    width = policy.spec.text_dim
    return torch.randn(width, generator=torch.Generator().manual_seed(0)).numpy() if width else None


def randomised(module: torch.nn.Module) -> None:
    """Fill weights with small random numbers: layers that begin at zero would hide differences."""
    rng = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        noise: Tensor = torch.randn(parameter.shape, generator=rng)
        parameter.data += 0.02 * noise
