"""The LightningModule: UVA's Figure 2, from a batch to one loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Self, cast

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from uva_lightning.balance import Balancer, FixedWeights, Step, Terms, collect_terms, means, own_losses
from uva_lightning.draws import Draws, seeded
from uva_lightning.global_batch import GlobalBatch
from uva_lightning.gradients import Gradients
from uva_lightning.model.fitted import Fitted, fit_together
from uva_lightning.model.heads.base import Errors, Head
from uva_lightning.model.start import StartFrom
from uva_lightning.model.stored import check_contract
from uva_lightning.model.streams import Shape
from uva_lightning.model.tokenizers.base import Tokenizer, encode_where
from uva_lightning.model.transformer import LatentTransformer
from uva_lightning.objective import Objective
from uva_lightning.optim import AdamWCosine
from uva_lightning.proprioception import Proprioception
from uva_lightning.sampler import ObjectiveSampler, Plan
from uva_lightning.set_actions import AnyActions, actions_for
from uva_lightning.sizes import check_heads, sequences, shapes, views
from uva_lightning.strategies.combinations import check as check_trainer
from uva_lightning.training_log import TrainingLog
from uva_lightning.types import Batch, DataSpec, Tokens
from uva_lightning.visibility import seen_when_asked

HeadFactory = Callable[[Shape], Head]
TransformerFactory = Callable[[Mapping[str, Shape]], LatentTransformer]
SamplerFactory = Callable[[Mapping[str, Objective]], ObjectiveSampler]


class UVAModule(LightningModule):
    """One shared latent transformer, trained on several objectives at once.

    Args:
        spec: Facts of the data; linked from ``data``.
        tokenizer: Frozen map between frames and latent tokens.
        objectives: What is trained, by a name of your choice.
        heads: One per predicted modality. A camera besides the main view has a future only if there is a head for it.
        transformer: The trunk, with the streams by which modalities enter.
        actions: How the model sees actions; each dimension's range to [-1, 1] if not given, as UVA. Each data set of a
            mixture has its own copy, fitted to it alone, or the one that is given for it by its name.
        proprioception: How the model sees proprioception; every entry a modality of its own if not given.
        sampler: Which sample serves which objective; equal shares in every batch if not given.
        balancer: How losses become one; the objectives' fixed weights if not given.
        optimizer: Optimizer and learning rate.
        seed: Seed of masks, noise and assignment.
        start: Weights to start a new run from.
    """

    def __init__(
        self,
        spec: DataSpec,
        tokenizer: Tokenizer,
        objectives: dict[str, Objective],
        heads: dict[str, HeadFactory],
        transformer: TransformerFactory,
        actions: AnyActions | None = None,
        proprioception: Proprioception | None = None,
        sampler: SamplerFactory = ObjectiveSampler,
        balancer: Balancer | None = None,
        optimizer: AdamWCosine | None = None,
        seed: int = 42,
        start: StartFrom | None = None,
    ) -> None:
        super().__init__()
        self.spec, self.tokenizer, self.seed, self.start = spec, tokenizer, seed, start
        self.actions = actions_for(spec, actions)
        self.proprioception = (proprioception or Proprioception()).bind(spec)
        self.optimizer, self._training_log = optimizer or AdamWCosine(), TrainingLog(list(spec.sets))
        self.sampler, self.balancer, self._alike = sampler(objectives), balancer or FixedWeights(), False
        self.balancer.bind(self.sampler.objectives)
        self.objectives = nn.ModuleList(o for o in objectives.values() if isinstance(o, nn.Module))

        self.sizes = shapes(spec, tokenizer, self.actions, self.proprioception, heads)
        self.transformer = transformer({n: s for n, s in self.sizes.items() if n not in self.proprioception.targets})
        check_heads(heads, self.sizes, objectives)
        sizes = {name: replace(shape, width=self.transformer.width) for name, shape in self.sizes.items()}
        if spec.action_dim:
            sizes["action"] = replace(sizes["action"], channels=spec.action_dim)
        self.heads = nn.ModuleDict({name: head(sizes[name]) for name, head in heads.items()})
        self._gradients = Gradients(self.transformer, self.heads, objectives)

    # -- from a batch to the loss ---------------------------------------------------------------------------------

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Serve every objective with its share of the batch; one transformer pass, each head once."""
        step = self._batches_done
        torch.manual_seed(seeded(self.seed, step, self.global_rank).initial_seed())  # dropout; a resume repeats it
        plan, terms, latent = self.losses(batch, step, self._whole(batch))
        self._gradients.saw(plan)
        loss = self.balancer(plan, terms, latent)
        self.sampler.observe(step, means(plan, terms))
        self._log_training(plan, terms, loss, batch)
        return loss

    def losses(self, batch: Batch, step: int, whole: GlobalBatch | None = None) -> Step:
        """Run the batch through the model.

        Heads and objectives' own losses also run where no row is theirs: all processes know the same parameters.

        Args:
            batch: Windows in physical units.
            step: Number that decides assignment, masks and noise, together with the seed and a sample's place.
            whole: The batch of all processes; this one is alone if not given.

        Returns:
            Who served what, the loss of each (objective, term), and Z.
        """
        whole = whole or GlobalBatch(len(batch))
        plan = self.sampler(step, self.present(batch) if batch.present else {}, whole)
        draws = Draws(self.seed, step, whole.places, self.device)
        tokens = self.tokens(batch, draws).rows(plan.order.to(self.device))
        draws = draws.rows(plan.order)
        absent = {name: rows[plan.order] for name, rows in self.absent(batch).items()}
        seen = plan.visible(tokens, draws).without(absent).to(self.device)
        latent = self.transformer(tokens, self.transformer.dropped(seen, draws))  # [b, t, s, d]

        def errors(name: str, rows: slice | Tensor) -> Errors:
            noise = partial(draws.rows(rows).normal, f"noise {name}")
            return self.head(name).loss(latent[rows], tokens.rows(rows), seen.rows(rows), noise)

        for name in set(self.heads) - set(plan.predicts):  # heads that no objective has: 0, but known to all processes
            latent = latent + errors(name, slice(0, 0)).sums.sum()
        heads = {name: errors(name, rows) for name, rows in plan.predicts.items()}
        own = own_losses(plan, latent, tokens, seen)
        self._gradients.agree(own, whole)
        return Step(plan, collect_terms(plan, heads, own, whole), latent)

    def _whole(self, batch: Batch, in_turns: bool = False) -> GlobalBatch:
        """Say where the samples of this process stand in the batch of all processes."""
        if self._trainer is None:
            return GlobalBatch(len(batch))
        return GlobalBatch(len(batch), self.global_rank, self.trainer.world_size, in_turns, self._alike, self.device)

    def present(self, batch: Batch) -> dict[str, Tensor]:
        """Say which samples have a modality of the model, bool[b]."""
        return {**batch.present, **self.proprioception.present(batch)}

    def absent(self, batch: Batch) -> dict[str, Tensor]:
        """Samples that lack a modality, bool[b], where some do: it is hidden, whatever an objective shows."""
        whole = {"action": batch.action, "past_action": batch.past_action, "text": batch.text}
        gone = {name: torch.ones(len(batch), dtype=torch.bool) for name, value in whole.items() if value is None}
        return {name: ~flags for name, flags in self.present(batch).items() if not flags.all()} | gone

    def head(self, name: str) -> Head:
        """Give the head of a modality.

        Raises:
            ValueError: There is none.
        """
        if name not in self.heads:
            raise ValueError(
                f"This model has no head for {name}, only {', '.join(self.heads)}; train one with model.heads.{name}."
            )
        return cast(Head, self.heads[name])

    def tokens(self, batch: Batch, draws: Draws | None = None) -> Tokens:
        """Tokenise frames and normalise numbers; what a batch lacks becomes zeros, which nothing may see.

        Args:
            batch: Windows in physical units.
            draws: Draw latents; the tokenizer decides if not given, usually for their mean.

        Raises:
            ValueError: The batch has a modality for which this model has no stream.
        """
        values: dict[str, Tensor] = {}
        for name, camera in self.cameras.items():
            moments = batch.latents.get(camera)
            if moments is None:
                moments = encode_where(self.encode_frames, batch.video[camera], batch.present.get(name))
            normal = None if draws is None else partial(draws.normal, f"latents {name}")
            latents = self.tokenizer.sample(moments, normal)  # f32[b, 2t, s, c]
            values[f"past_{name}"], future = latents.chunk(2, dim=1)
            if name in self.transformer.streams:
                values[name] = future
        given = {"past_action": batch.past_action, "action": batch.action}
        values |= {n: self.actions.encode(v, batch.state, batch.source) for n, v in given.items() if v is not None}
        if batch.text is not None:
            values["text"] = batch.text[:, None]
        if surplus := set(values) - set(self.transformer.streams):
            name = sorted(surplus)[0]
            raise ValueError(f"The batch has {name}, for which this model has no stream; leave it out of the data.")
        for name, (channels, steps) in sequences(self.spec, self.actions).items():
            if name not in values:
                values[name] = torch.zeros(len(batch), steps, channels, device=self.device)
        values |= self.proprioception.encode(batch, self.device)
        valid = self.actions.valid(batch.source)
        return Tokens(values, None if valid is None else {"action": valid})

    @property
    def cameras(self) -> dict[str, str]:
        """Cameras by the name of their modality."""
        return views(self.spec)

    # -- training -------------------------------------------------------------------------------------------------

    def setup(self, stage: str) -> None:
        """Refuse a trainer that cannot work, see ``combinations.check``."""
        check_trainer(self.trainer)

    def configure_optimizers(self) -> Any:
        """Optimizer and schedule, stepped with every optimizer step."""
        fused = self.trainer.precision != "16-mixed"  # Lightning cannot clip scaled gradients of a fused optimizer
        starts = [batches // self.trainer.accumulate_grad_batches for batches in self.sampler.starts]
        optimizer, schedule = self.optimizer.build(self, self.trainer.estimated_stepping_batches, fused, starts)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Decide as robot policy: ``action`` f32[b, h, a] in physical units, and what was really done."""
        tokens = self.tokens(batch)
        seen = seen_when_asked(self.sampler.objectives, tokens, "action").without(self.absent(batch)).to(self.device)
        head, whole = self.head("action"), self._whole(batch, in_turns=True)
        draws = Draws(self.seed, batch_idx, whole.places, self.device)
        noise = draws.normal("action", self.spec.horizon, self.spec.action_dim)
        sampled = head.sample(self.transformer(tokens, seen), tokens, seen, noise)
        found = {"action": self.actions.decode(sampled, batch.state, batch.source)}
        known = {"source": batch.source, "recorded": batch.action}
        return found | {name: value for name, value in known.items() if value is not None}

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by norm; Lightning refuses fused optimizers, which is needed for scaled float16 gradients only."""
        if self.trainer.precision == "16-mixed" or gradient_clip_algorithm not in (None, "norm"):
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
        elif gradient_clip_val:
            nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)

    def on_fit_start(self) -> None:
        """Fit what is fitted on data and not in the checkpoint, then encode every frame once, unless a cache has them.

        Raises:
            ValueError: No data set has what an objective needs.
        """
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        self._alike = self.sampler.check({name: self.present(sample) for name, sample in data.samples().items()})
        if self.start is not None and self.trainer.ckpt_path is None:
            self.start.apply(self, self._fitted())
        if not self.tokenizer.fitted:
            data.fit_tokenizer(self.tokenizer)
        if unfitted := [part for part in (self.actions, self.proprioception) if not part.fitted]:
            fit_together(unfitted, data.training_numbers())
        if self.trainer.world_size > 1:  # eigenvectors may differ in sign between machines
            for part in self._fitted().values():
                part.load_state(self.trainer.strategy.broadcast(part.state()))
        self._place_fitted()
        data.cache(self.encode_frames, self.tokenizer.fingerprint())

    def encode_frames(self, frames: Tensor) -> Tensor:
        """Encode u8[..., H, W, 3] to f16[..., s, m], on this module's device and as a cache holds it, in each use."""
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False):
            return self.tokenizer.encode(frames.to(self.device)).half()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Losses on held-out episodes with the same masks and noise every time."""
        self._evaluate("val", batch, batch_idx)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """See ``validation_step``."""
        self._evaluate("test", batch, batch_idx)

    def _evaluate(self, stage: str, batch: Batch, batch_idx: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(self.seed, batch_idx, self.global_rank).initial_seed())
            plan, terms, latent = self.losses(batch, batch_idx, whole := self._whole(batch, in_turns=True))
        loss = self.balancer(plan, terms, latent)
        own = [] if batch.source is None else [f"{stage}/{list(self.spec.sets)[int(batch.source[0])]}"]
        for where in (stage, *own):  # a batch of a mixture's validation is from one data set
            self.log(f"{where}/loss", loss, prog_bar=where == stage, batch_size=whole.total, sync_dist=True)
            for (name, term), (_, mean) in terms.items():
                if served := round(plan.share[name] * whole.total):
                    self.log(f"{where}/{name}/{term}", mean, batch_size=served, sync_dist=True)

    def on_after_backward(self) -> None:
        """See ``Gradients``."""
        self._gradients.check(self)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Leave alone what no process had samples of, and log the gradient norm of the trunk and of each head."""
        self._gradients.release()
        if self._log_is_due:
            self.log_dict({f"grad_norm/{name}": norm for name, norm in self._gradients.norms().items()})

    def _log_training(self, plan: Plan, terms: Terms, loss: Tensor, batch: Batch) -> None:
        """Log means since the last entry."""
        self._training_log.add(plan, {"loss": loss, **self.balancer.entries(plan, terms)}, batch.source)
        if self._log_is_due:
            means = self._training_log.flush(self._whole(batch))
            self.log("train/loss", means.pop("train/loss"), prog_bar=True, sync_dist=True)
            self.log_dict(means)

    @property
    def _log_is_due(self) -> bool:
        trainer: Any = self.trainer
        return (self.global_step + 1) % max(1, trainer.log_every_n_steps) == 0

    @property
    def _batches_done(self) -> int:
        """Batches trained on since the start of training; restored by Lightning on resume."""
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return int(progress.processed)

    # -- checkpoint -----------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Store the contract with the data, what was fitted on it, and what the sampler has learned."""
        checkpoint["contract"], checkpoint["sampler"] = asdict(self.spec), self.sampler.state()
        checkpoint["fitted"] = {name: part.state() for name, part in self._fitted().items()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the contract and take what was fitted.

        Raises:
            ValueError: The data differ from those of the checkpoint.
        """
        if missing := {"contract", "fitted"} - set(checkpoint):
            raise ValueError(f"The checkpoint lacks {sorted(missing)}, expected one that `uva fit` wrote.")
        check_contract(checkpoint["contract"], self.spec)
        self.sampler.load_state(checkpoint.get("sampler", {}))
        for name, part in self._fitted().items():
            part.load_state(checkpoint["fitted"][name])
        self._place_fitted()

    def _fitted(self) -> dict[str, Fitted]:
        return {"tokenizer": self.tokenizer, "actions": self.actions, "proprioception": self.proprioception}

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move the fitted parts along with the parameters."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._place_fitted()
        return self

    def _place_fitted(self) -> None:
        for part in self._fitted().values():
            part.to(self.device)
