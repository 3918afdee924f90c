"""Generated data and a model of a few thousand weights, for tests that train; torchvision, where it is broken."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

EPISODES, STEPS = 6, 60

settings.register_profile("repeatable", derandomize=True, deadline=None)  # the same examples in every run
settings.load_profile("repeatable")


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


class TinyRun:
    """A run of ``uva fit`` on the tiny data that saves after every step."""

    def __init__(self, data: Path) -> None:
        self.data = data

    def __call__(self, folder: Path, steps: int, **trainer) -> Path:
        """Write its config, which saves into ``folder``; more options as in ``trainer:``."""
        import yaml

        folder.mkdir(exist_ok=True)
        flow = {"class_path": "FlowMatching", "init_args": {"width": 16, "depth": 1}}
        size = {"width": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
        model = {
            "tokenizer": {"class_path": "LinearPatches", "init_args": {"channels": 8}},
            "transformer": {"class_path": "LatentTransformer", "init_args": size},
            "objectives": {"policy": "RobotPolicy", "video": "VideoModel"},
            "heads": {
                "video": {"class_path": "VideoHead", "init_args": {"denoiser": flow}},
                "action": {"class_path": "ActionHead", "init_args": {"aggregator": "ConvFC", "denoiser": flow}},
            },
        }
        saving = {"dirpath": str(folder), "save_last": True, "every_n_train_steps": 1}
        shown = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        computing = {"accelerator": "cpu", "devices": 1, "max_steps": steps, "limit_val_batches": 0}
        callbacks = ["EMA", {"class_path": "ModelCheckpoint", "init_args": saving}]
        options = {**computing, **shown, "default_root_dir": str(folder), "callbacks": callbacks}
        data = {"path": str(self.data), "window": {"frames": 2}, "batch_size": 4}
        config = {"model": model, "data": {"class_path": "PushT", "init_args": data}, "trainer": {**options, **trainer}}
        (folder / "run.yaml").write_text(yaml.safe_dump(config))
        return folder / "run.yaml"

    def start(self, folder: Path, steps: int, **trainer) -> subprocess.Popen:
        """Start it from its last checkpoint, in a process group of its own, with its output in ``output.txt``."""
        config = self(folder, steps, **trainer)
        script = folder / "uva.py"
        script.write_text("import sys; from uva_lightning.cli import main; sys.exit(main())")
        env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(script), "fit", "--config", str(config), "--ckpt_path", "last"]
        with (folder / "output.txt").open("a") as file:
            return subprocess.Popen(
                command, cwd=folder, env=env, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )


@pytest.fixture(scope="session")
def tiny_run(tiny_data):
    """Give a function that writes the config of a tiny run; its ``start`` runs it in a process of its own."""
    return TinyRun(tiny_data.path)


@pytest.fixture(scope="session")
def official_keys():
    """Names and shapes of the official code's files, full size and tiny, by the name of the file."""
    return json.loads(gzip.decompress((Path(__file__).parent / "fixtures" / "official_keys.json.gz").read_bytes()))


@pytest.fixture(scope="session")
def official_state(official_keys):
    """Give a function that fills the tensors of a tiny official policy, each by its name; current weights differ."""
    from uva_lightning.parity.naming import normal

    normalizers = {"pusht": "pusht_joint", "libero10": "libero10_joint", "toolhang": "toolhang_joint_full"}

    def make(variant, copy="ema_model"):
        shapes = {f"model.{name}": shape for name, shape in official_keys[f"tiny/{variant}"].items()}
        full = official_keys.get(f"full/{normalizers.get(variant.removesuffix('_hist'))}", {})
        frozen = {name: shape for name, shape in full.items() if not name.startswith("model.")}
        state = {name: normal(f"{copy}/{name}", shape) for name, shape in shapes.items()}
        return {**state, **{name: normal(name, shape) for name, shape in {"_dummy_variable": [0], **frozen}.items()}}

    return make


@pytest.fixture
def official_file(official_state, tmp_path):
    """Give a function that writes a tiny official checkpoint after an optional change to its content."""
    import torch

    def write(variant="pusht", change=None):
        states = {copy: official_state(variant, copy) for copy in ("model", "ema_model")}
        content = {"cfg": {"task": {"name": variant}}, "state_dicts": states, "pickles": {"epoch": 3}}
        if change is not None:
            change(content)
        torch.save(content, tmp_path / f"{variant}.ckpt")
        return tmp_path / f"{variant}.ckpt"

    return write


@pytest.fixture(scope="session")
def tiny_vae(tmp_path_factory):
    """A folder with an autoencoder that has KL-16's interface and 24 thousand weights."""
    import torch
    from diffusers import AutoencoderKL

    folder = tmp_path_factory.mktemp("vae") / "vae"
    torch.manual_seed(0)
    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 5,
        up_block_types=("UpDecoderBlock2D",) * 5,
        block_out_channels=(4,) * 5,
        layers_per_block=1,
        latent_channels=16,
        norm_num_groups=2,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def uva(capsys):
    """A function that runs a command and gives its status, output and complaint."""

    from uva_lightning.cli import main

    def run(*args):
        status = main([str(arg) for arg in args])
        return status, *capsys.readouterr()

    return run


@pytest.fixture
def imported(uva, official_file, tiny_vae, tmp_path):
    """A function that imports a tiny official checkpoint and gives folder and output."""

    def run(variant="pusht", *options, change=None):
        folder = tmp_path / f"{variant}_imported"
        source = official_file(variant, change)
        status, out, complaint = uva(
            "import-checkpoint", source, "--to", folder, "--heads", 4, "--vae", tiny_vae, *options
        )
        assert (status, complaint) == (0, "")
        return folder, out

    return run


@pytest.fixture
def refused(uva, tmp_path):
    """A function that imports something that cannot be, and gives the one sentence; nothing may be left behind."""

    def run(source, *options):
        before = sorted(tmp_path.iterdir())
        status, out, complaint = uva("import-checkpoint", source, "--to", tmp_path / "out", "--heads", 4, *options)
        assert (status, out) == (2, "")
        assert sorted(tmp_path.iterdir()) == before
        assert complaint.startswith("uva: error: ")
        assert complaint.count("\n") == 1
        return complaint

    return run
