"""Checkpoints of tiny models before their first step, written without a training."""

from __future__ import annotations

CONFIG = """
data: {class_path: PushT, init_args: {path: nowhere, window: {frames: 2}}}
model:
  tokenizer: {class_path: LinearPatches, init_args: {channels: 8}}
  objectives: {policy: {class_path: RobotPolicy}}
  transformer:
    class_path: uva_lightning.model.transformer.LatentTransformer
    init_args: {width: 32, heads: 2, encoder_depth: 1, decoder_depth: 1}
  heads:
    action:
      class_path: uva_lightning.model.heads.base.ActionHead
      init_args:
        steps: 2
        aggregator: {class_path: uva_lightning.model.heads.aggregate.ConvFC}
        denoiser:
          class_path: uva_lightning.model.heads.flow.FlowMatching
          init_args: {width: 32, depth: 1}
"""


def checkpoint(path, data, seed=0, config=CONFIG):
    """Fit what is fitted on ``data``, a datamodule, and write the checkpoint."""
    import torch

    from uva_lightning.model.checkpoint import build
    from uva_lightning.model.fitted import fit_together

    data.setup("fit")
    torch.manual_seed(seed)
    module, _ = build(config)
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    return written(module, config, path)


def written(module, config, path):
    """Write a model that is fitted to its data, with the config it was built from."""
    import torch

    content = {"config": config, "state_dict": module.state_dict()}
    module.on_save_checkpoint(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path
