"""FSDP2 for models that do not fit: each process holds a part of the weights, the gradients and Adam's moments."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.strategies.strategy import Strategy
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from uva_lightning.model.transformer import Block
from uva_lightning.module import UVAModule
from uva_lightning.strategies.sharded import is_cut, like, put_together


class FullySharded(ModelParallelStrategy):
    """Cut the weights among the processes of a node; several nodes hold the same parts (hybrid sharding).

    A block's weights are put together when it is used, and dropped again. A step is the step of DDP, to rounding.
    Checkpoints are the usual single files, put together on the first process: any number of processes, with or without
    this strategy, can go on from them, and ``uva rollout`` reads them. ``EMA`` is cut, too.

    Nothing is saved when a process fails: the others could not take part. ``Requeue`` and ``ModelCheckpoint`` save as
    ever.

    Args:
        across_nodes: Cut among the processes of all nodes, for models too large for one; slower between nodes.
        process_group_backend: ``nccl`` for GPUs and ``gloo`` for CPUs if not given.
    """

    def __init__(
        self,
        across_nodes: bool = False,
        process_group_backend: str | None = None,
    ) -> None:
        super().__init__(save_distributed_checkpoint=False, process_group_backend=process_group_backend)
        self.across_nodes = across_nodes

    @property
    def restore_checkpoint_after_setup(self) -> bool:
        """Load the weights while they are whole, as all other strategies do."""
        return False

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Let the trainer load the optimizer, as for all other strategies."""
        return True

    def setup(self, trainer: Trainer) -> None:
        """Cut the model, then build the optimizer for its parts.

        Raises:
            ValueError: The model cannot be cut.
        """
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                callback.save_on_exception = False
        Strategy.setup(self, trainer)  # that of the parent wants a hook of the model in which the model cuts itself
        self.barrier()

    def _setup_model(self, model: nn.Module) -> nn.Module:
        self.cut(model)
        return model

    def cut(self, model: nn.Module) -> None:
        """Cut a model, in place; nothing is sent.

        Raises:
            ValueError: It has weights that nothing puts together before they are used.
        """
        if is_cut(model):
            return
        if not isinstance(model, UVAModule):
            raise ValueError(f"FullySharded got a {type(model).__name__}, expected a UVAModule; use ddp.")
        _cut(model, self._mesh)
        if left := [name for name, weight in model.named_parameters() if not isinstance(weight, DTensor)]:
            raise ValueError(
                f"FullySharded cannot cut {left[0]}, expected weights in the trunk, heads, objectives or the balancer "
                "only; use ddp."
            )

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Put the weights together on the first process; the others give nothing."""
        assert self.lightning_module is not None
        state: dict[str, Any] = put_together(self.lightning_module.state_dict(), self.is_global_zero)
        return state if self.is_global_zero else {}

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load the weights; they are not cut yet."""
        assert self.lightning_module is not None
        self.lightning_module.load_state_dict(checkpoint["state_dict"], strict=strict)

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """Put the moments together on the first process; the others give nothing."""
        state: dict[str, Any] = put_together(optimizer.state_dict(), self.is_global_zero)
        return state if self.is_global_zero else {}

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the file on every process."""
        return self.checkpoint_io.load_checkpoint(checkpoint_path, weights_only=weights_only)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Cut the moments as the weights are."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            numbers = [number for group in state["param_groups"] for number in group["params"]]
            by_number = dict(zip(numbers, weights, strict=True))
            cut = {
                number: {
                    name: like(value, by_number[number]) if value.shape == by_number[number].shape else value
                    for name, value in moments.items()
                }
                for number, moments in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": cut})

    @cached_property
    def _mesh(self) -> DeviceMesh:
        """The processes: nodes by processes of a node, of which the latter share the parts."""
        mesh = self.device_mesh
        if mesh.size(0) == 1:
            return mesh[mesh.mesh_dim_names[-1]] if mesh.mesh_dim_names else mesh
        return init_device_mesh(mesh.device_type, (mesh.size(),)) if self.across_nodes else mesh


def _cut(model: UVAModule, mesh: DeviceMesh) -> None:
    """Cut each block by itself, and what is left of the trunk, each head and all else that learns."""
    for block in model.transformer.modules():
        if isinstance(block, Block):
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
    used: dict[str, tuple[nn.Module, tuple[str, ...]]] = {
        "transformer": (model.transformer, ()),
        "balancer": (model.balancer, ()),
        **{f"heads.{name}": (head, ("loss", "sample")) for name, head in model.heads.items()},
        **{f"objectives.{k}": (objective, ("loss_terms",)) for k, objective in enumerate(model.objectives)},
    }
    for name, (part, methods) in used.items():
        if scalars := [where for where, weight in part.named_parameters() if not weight.ndim]:
            raise ValueError(
                f"FullySharded cannot cut {name}.{scalars[0]}, a single number; let it have the shape [1], or use ddp."
            )
        if any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
            for method in methods:  # they use the weights and are called by themselves
                register_fsdp_forward_method(part, method)
