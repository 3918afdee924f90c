"""Generated data and a model of a few thousand weights, for tests that train; torchvision, where it is broken."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

EPISODES, STEPS = 6, 60


def mend_torchvision():
    """Let torchvision be imported beside a torch of another build, as pip combines them on machines without a GPU.

    PyPI's torchvision needs CUDA's libraries for its operators; without them the import fails where two of the
    operators are described. open_clip imports torchvision but uses no operator of it. Must run before lightning is
    imported, which looks for torchvision too.
    """
    found = find_spec("torchvision")
    if found is None or found.origin is None:
        return
    import torch

    try:
        for library in Path(found.origin).parent.glob("_C*.so"):
            torch.ops.load_library(library)
    except OSError:
        mend_torchvision.library = torch.library.Library("torchvision", "DEF")  # lives as long as the tests
        for operator in ("nms", "qnms"):
            mend_torchvision.library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


mend_torchvision()


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory):
    """Give a function that makes a Push-T datamodule on six generated episodes of 60 steps; options as for PushT."""
    from uva_lightning.datamodules.pusht import PushT
    from uva_lightning.datamodules.windows import Window

    path, rng = tmp_path_factory.mktemp("tiny") / "demos", np.random.default_rng(0)
    path.mkdir()
    meta = {"format": "uva_lightning demos 1", "env": "pusht", "seed": 0, "candidates": 100, "episodes": EPISODES}
    (path / "meta.json").write_text(json.dumps(meta))
    for number in range(EPISODES):
        walk = 256 + rng.normal(0, 8, (STEPS, 2)).cumsum(axis=0)
        np.savez(
            path / f"episode_{number:06d}.npz",
            frames=rng.integers(0, 256, (STEPS, 6, 6, 3), dtype=np.uint8).repeat(16, axis=1).repeat(16, axis=2),
            action=(walk + rng.normal(0, 4, (STEPS, 2))).clip(0, 512).astype(np.float32),
            agent=walk.clip(0, 512).astype(np.float32),
        )

    def make(**options):
        return PushT(path, **{"window": Window(2), "batch_size": 8, "val_ratio": 0.2, **options})

    make.path = path
    return make


@pytest.fixture(scope="session")
def tiny_module():
    """Give a function that makes a tiny model for a ``spec``, the same one every time; options as for UVAModule."""
    import torch

    from uva_lightning.model.heads.aggregate import ConvFC
    from uva_lightning.model.heads.base import ActionHead, VideoHead
    from uva_lightning.model.heads.flow import FlowMatching
    from uva_lightning.model.tokenizers.linear_patches import LinearPatches
    from uva_lightning.model.transformer import LatentTransformer
    from uva_lightning.module import UVAModule
    from uva_lightning.objectives.forward_dynamics import ForwardDynamics
    from uva_lightning.objectives.robot_policy import RobotPolicy
    from uva_lightning.objectives.video_model import VideoModel

    def denoiser(channels, condition):
        return FlowMatching(channels, condition, width=32, depth=1)

    def make(spec, **options):
        torch.manual_seed(0)
        defaults = {
            "tokenizer": LinearPatches(channels=8),
            "objectives": {"policy": RobotPolicy(), "video": VideoModel(), "forward": ForwardDynamics()},
            "heads": {
                "video": lambda shape: VideoHead(shape, denoiser, steps=2),
                "action": lambda shape: ActionHead(shape, denoiser, ConvFC, steps=2),
            },
            "transformer": lambda shapes: LatentTransformer(shapes, 32, 2, 1, 1),
        }
        return UVAModule(spec, **{**defaults, **options})

    return make
