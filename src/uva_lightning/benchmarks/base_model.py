"""A model of an experiment's size with random weights, where no checkpoint is needed to tell how long it takes."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml

from uva_lightning.benchmarks.decisions import randomised
from uva_lightning.commands.configs import read_config, resolve_configs
from uva_lightning.commands.errors import UserError
from uva_lightning.model.checkpoint import build
from uva_lightning.model.tokenizers.kl16 import build_kl16
from uva_lightning.module import UVAModule

KL_VAE = "KLVAE"


def random_model(config: str) -> UVAModule:
    """Build the model of an experiment without its data and without pretrained parts.

    Args:
        config: Experiment, such as ``configs/pusht.yaml``.

    Raises:
        UserError: It is no experiment with a model and data.
    """
    path = resolve_configs(["--config", config])[1]
    sections: dict[str, Any] = dict(read_config(Path(path)))
    if missing := {"model", "data"} - set(sections):
        raise UserError(f"{config} has no '{sorted(missing)[0]}:', expected an experiment such as configs/pusht.yaml.")
    tokenizer = sections["model"]["tokenizer"]
    with TemporaryDirectory(prefix="uva-bench-") as folder, torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if isinstance(tokenizer, dict) and tokenizer["class_path"].rpartition(".")[2] == KL_VAE:
            build_kl16().save_pretrained(folder)
            tokenizer["init_args"]["path"] = folder
        module, _ = build(yaml.safe_dump(sections, sort_keys=False))
    randomised(module)
    _fit(module)
    return module.eval()


def _fit(module: UVAModule) -> None:
    """Fit what maps numbers on random ones: the values do not change how long it takes."""
    from uva_lightning.model.fitted import fit_together
    from uva_lightning.types import Batch

    spec, rng = module.spec, torch.Generator().manual_seed(0)
    samples = 64
    batch = Batch(
        action=torch.randn(samples, spec.horizon, spec.action_dim, generator=rng),
        state={n: torch.randn(samples, spec.proprio_steps, w, generator=rng) for n, w in spec.state_dims.items()},
        present={"action": torch.ones(samples, dtype=torch.bool)},
    )
    parts = [part for part in (module.actions, module.proprioception) if not part.fitted]
    if parts:
        fit_together(parts, iter([batch]))
    if not module.tokenizer.fitted:
        size = spec.image_size
        module.tokenizer.fit(torch.randint(0, 256, (samples, size, size, 3), generator=rng, dtype=torch.uint8))
