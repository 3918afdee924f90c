"""Every shipped config runs two steps on generated data, at tiny sizes."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from uva_lightning.cli import main
from uva_lightning.demos import write_demos

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
SMALL = {
    "pusht": [
        "--model.transformer.width=32",
        "--model.transformer.heads=2",
        "--model.transformer.encoder_depth=1",
        "--model.transformer.decoder_depth=1",
        "--model.tokenizer.image_size=64",
        "--model.heads.video.init_args.steps=2",
        "--model.heads.action.init_args.steps=2",
        "--data.batch_size=8",
    ]
}


@pytest.fixture(scope="module")
def demos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demos") / "pusht"
    write_demos("pusht", folder, 8, workers=2)
    return folder


@pytest.fixture(scope="module")
def autoencoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    blocks = {"down_block_types": ["DownEncoderBlock2D"] * 3, "up_block_types": ["UpDecoderBlock2D"] * 3}
    AutoencoderKL(block_out_channels=(8, 8, 8), norm_num_groups=4, latent_channels=4, **blocks).save_pretrained(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_runs_two_steps(config: Path, demos: Path, autoencoder: Path, tmp_path: Path) -> None:
    options = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]
    options += ["--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null"]
    options += [f"--data.path={demos}", f"--trainer.logger.init_args.save_dir={tmp_path}"]
    if "cache_dir" in config.read_text():
        options.append(f"--data.cache_dir={tmp_path / 'cache'}")
    if "KLVAE" in config.read_text():
        options.append(f"--model.tokenizer.path={autoencoder}")
    if "Rollout" in config.read_text():
        options.append("--trainer.max_epochs=1")
    status = main(["fit", "--config", str(config), *options, *SMALL.get(config.stem, [])])
    assert status == 0
    assert list(tmp_path.glob("**/last.ckpt"))
