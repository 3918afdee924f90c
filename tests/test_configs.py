"""Every shipped config parses at full size and runs two steps at a tiny one, on data made up for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml
from diffusers import AutoencoderKL

from uva_lightning.cli import main
from uva_lightning.commands.configs import read_config, resolve_configs, shipped
from uva_lightning.commands.discovery import import_components
from uva_lightning.commands.merge import merge_configs
from uva_lightning.commands.training import UVACLI, TrainingParser
from uva_lightning.demos import write_demos
from uva_lightning.evaluation.suite import known_suites

CONFIGS = sorted(name for name in shipped() if "/" not in name)
EMBEDDED = ["block_push.yaml", "quickstart.yaml", "showcase.yaml"]
OWN = ["lerobot.yaml"]
MIXED = ["human_video.yaml", "mixture.yaml"]
SIMULATED = ["quickstart_arm.yaml"]  # run by test_hardware_rollout
PAPER = [name for name in CONFIGS if name not in (*EMBEDDED, *OWN, *MIXED, *SIMULATED)]
STAGES = {"both": [], "video": ["stages/video.yaml"], "joint": ["stages/joint.yaml"]}
OFFICIAL = {
    ("pusht.yaml", "both"): 261.08,
    ("pusht.yaml", "video"): 208.85,
    ("libero10.yaml", "both"): 261.60,
    ("human_video.yaml", "both"): 261.60,
    ("toolhang.yaml", "both"): 350.91,
    ("umi_multi.yaml", "both"): 314.46,
}
"""Million parameters of the official models, without autoencoder and text encoder."""
SHORT = ["--trainer.max_steps=2", "--trainer.limit_val_batches=1", "--trainer.accelerator=cpu"]


def build(configs, *options):
    """Build the model of an experiment, at full size, with a tokenizer that needs no weights."""
    from uva_lightning.datamodules.training_data import TrainingData
    from uva_lightning.module import UVAModule

    import_components()
    argv = ["fit", *(word for name in configs for word in ("--config", name))]
    sys.argv = ["uva", *merge_configs(resolve_configs(argv))[1:], *options]
    sys.argv += ["--model.tokenizer=LinearPatches", "--model.tokenizer.grid=16", "--model.tokenizer.channels=16"]
    sys.argv += ["--trainer.accelerator=cpu", "--trainer.precision=32-true", "--trainer.strategy=auto"]
    sys.argv += ["--trainer.callbacks=null", "--trainer.logger=false"]
    cli = UVACLI(
        UVAModule,
        TrainingData,
        save_config_callback=None,
        trainer_defaults={"use_distributed_sampler": False},
        parser_class=TrainingParser,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        run=False,
    )
    return cli.model


@pytest.fixture(autouse=True)
def own_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["uva"])


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


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("random")


def two_steps(config: str, stage: str, data: Path, folder: Path, *options: str) -> Path:
    """Train an experiment at the smoke size for two steps and give its checkpoint."""
    configs = [word for name in (config, *STAGES[stage], "sizes/smoke.yaml") for word in ("--config", name)]
    argv = ["fit", *configs, f"--data.path={data / Path(config).stem}", "--data.generate=RandomEpisodes", *options]
    argv += [f"--trainer.logger.init_args.save_dir={folder}", "--trainer.val_check_interval=2"]
    assert main([*argv, *SHORT, "--trainer.check_val_every_n_epoch=null"]) == 0
    (file,) = folder.glob("**/last.ckpt")
    return file


def heads(file: Path) -> set[str]:
    return {name.split(".")[1] for name in torch.load(file)["state_dict"] if name.startswith("heads.")}


@pytest.mark.slow
@pytest.mark.parametrize("version", ["v2.1", "v3.0"])
def test_recordings_of_one_s_own_train(version: str, tmp_path: Path) -> None:
    pytest.importorskip("av")
    from lerobot_sets import write_set

    write_set(tmp_path / "set", version, width=26, size=(48, 64), rate=30)
    argv = ["fit", "--config=configs/lerobot.yaml", f"--data.path={tmp_path / 'set'}", "--data.batch_size=4"]
    argv += [f"--trainer.logger.init_args.save_dir={tmp_path}", "--trainer.precision=32-true"]
    assert main([*argv, *SHORT, "--trainer.val_check_interval=2"]) == 0
    (file,) = tmp_path.glob("**/last.ckpt")
    assert {"action", "video"} == heads(file)
    assert torch.load(file)["contract"]["action_dim"] == 26


@pytest.mark.slow
@pytest.mark.parametrize("config", PAPER)
def test_the_paper_s_experiments_run_two_steps_as_one_run(config: str, made_up: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    seam = "--model.sampler.init_args.stages.video.steps=1"
    assert "action" in heads(two_steps(config, "both", made_up, tmp_path, seam))


@pytest.mark.slow
@pytest.mark.parametrize("config", PAPER)
def test_the_paper_s_experiments_run_two_steps_as_two_runs(config: str, made_up: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    first = two_steps(config, "video", made_up, tmp_path / "first")
    assert heads(first) == {"video"}
    second = two_steps(config, "joint", made_up, tmp_path / "second", f"--model.start.path={first}")
    assert {"video", "action"} <= heads(second)


@pytest.mark.slow
def test_the_second_stage_needs_the_first(made_up: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("zarr")
    for option, words in ((), "StartFrom: Missing: path"), (("--model.start.path=nowhere",), "There is no checkpoint"):
        with pytest.raises((AssertionError, SystemExit)):
            two_steps("pusht.yaml", "joint", made_up, tmp_path, *option)
        assert words in capsys.readouterr().err


@pytest.mark.slow
def test_past_actions_run_two_steps(made_up: Path, tmp_path: Path) -> None:
    pytest.importorskip("zarr")
    names = ("toolhang", "options/past_action", "sizes/smoke")
    configs = [word for name in names for word in ("--config", name)]
    data = [f"--data.path={made_up / 'toolhang'}", "--data.generate=RandomEpisodes", "--trainer.limit_val_batches=1"]
    assert main(["fit", *configs, *data, f"--trainer.logger.init_args.save_dir={tmp_path}", *SHORT]) == 0
    (file,) = tmp_path.glob("**/last.ckpt")
    assert "transformer.streams.past_action.placeholder" in torch.load(file)["state_dict"]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LeRobot data set and a folder of videos, as small as they can be."""
    pytest.importorskip("av")
    pytest.importorskip("pyarrow")
    from films import numbered, write_film
    from lerobot_sets import write_set

    folder = tmp_path_factory.mktemp("films")
    write_set(folder / "lerobot", "v3.0", lengths=(40, 50, 45))
    for number in range(3):
        write_film(folder / "videos" / f"{number}.mp4", numbered(60))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("config", MIXED)
def test_mixtures_run_two_steps_and_log_the_share_of_every_set(
    config: str, demos: Path, films: Path, tmp_path: Path
) -> None:
    pytest.importorskip("zarr")
    own = {
        "pusht": {"path": str(demos), "generate": None},
        "arm": {"path": str(films / "lerobot")},
        "libero": {
            "path": str(tmp_path / "libero10.zarr.zip"),
            "generate": {"class_path": "RandomEpisodes"},
            "text": {"init_args": {"missing": {"class_path": "RandomInstructions"}}},
        },
        "people": {"path": str(films / "videos")},
    }
    shipped_sets = read_config(shipped()[config])["data"]["init_args"]["sets"]
    sets = {name: {"init_args": changes} for name, changes in own.items() if name in shipped_sets}
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"sets": sets}}}))
    configs = [word for name in (config, "sizes/smoke", str(tmp_path / "data.yaml")) for word in ("--config", name)]
    options = [
        f"--trainer.logger.init_args.save_dir={tmp_path}",
        "--data.batch_size=8",
        "--trainer.log_every_n_steps=1",
    ]
    assert main(["fit", *configs, *options, *SHORT, "--trainer.val_check_interval=2"]) == 0
    (file,) = tmp_path.glob("**/last.ckpt")
    stored = torch.load(file, weights_only=True)
    assert set(stored["contract"]["sets"]) == set(shipped_sets)
    assert {key.split("/")[0] for key in stored["fitted"]["actions"]} == set(shipped_sets) - {"people"}
    (events,) = tmp_path.glob("**/events*")
    for name in shipped_sets:
        assert f"data/{name}/share_rank0".encode() in events.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize(("config", "stage"), OFFICIAL)
def test_full_size_has_the_parameters_of_the_official_model(config: str, stage: str) -> None:
    model = build([config, *STAGES[stage]])
    millions = sum(weights.numel() for weights in model.parameters()) / 1e6
    assert millions == pytest.approx(OFFICIAL[config, stage], abs=0.03)  # the official one has unused layers


@pytest.mark.slow
@pytest.mark.parametrize("overlay", [name for name in shipped() if "/" in name and not name.startswith("arms/")])
def test_every_overlay_parses_over_every_experiment(overlay: str, capsys: pytest.CaptureFixture[str]) -> None:
    change = read_config(shipped()[overlay])
    windows = "window" in change.get("data", {}).get("init_args", {})  # each set of a mixture has one of its own
    for config in PAPER if windows else (*PAPER, *MIXED):
        with pytest.raises(SystemExit) as stop:
            main(["fit", "--config", config, "--config", overlay, "--print_config"])
        printed = yaml.safe_load(capsys.readouterr().out)
        assert not stop.value.code
        changes = change.get("model", {}).get("transformer", {}).get("init_args", {})
        trunk = printed["model"]["transformer"]["init_args"]
        assert {name: trunk[name] for name in changes if name != "streams"} == {
            name: value for name, value in changes.items() if name != "streams"
        }
        assert trunk["width"] % trunk["heads"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("config", [*EMBEDDED, "pusht.yaml"])
def test_runs_two_steps_with_its_own_tokenizer_and_callbacks(
    config: str, demos: Path, autoencoder: Path, tmp_path: Path
) -> None:
    options = [*SHORT, f"--data.path={demos}", f"--trainer.logger.init_args.save_dir={tmp_path}"]
    options += ["--trainer.val_check_interval=2", "--trainer.check_val_every_n_epoch=null"]
    if config == "pusht.yaml":
        options += ["--config", str(_small_pusht(tmp_path, autoencoder))]
    status = main(["fit", "--config", config, *options, "--trainer.max_epochs=1"])
    assert status == 0
    assert list(tmp_path.glob("**/last.ckpt"))


def _small_pusht(folder: Path, autoencoder: Path) -> Path:
    """Lay a small size over the experiment, and play two episodes instead of 50."""
    callbacks = read_config(shipped()["pusht.yaml"])["trainer"]["callbacks"]
    (rollout,) = (entry for entry in callbacks if isinstance(entry, dict) and entry["class_path"] == "Rollout")
    rollout["init_args"]["episodes"] = 2
    head = {"init_args": {"steps": 2, "denoiser": {"init_args": {"width": 16, "depth": 1}}}}
    trunk = {"width": 32, "heads": 2, "encoder_depth": 1, "decoder_depth": 1}
    content = {
        "model": {
            "tokenizer": {"init_args": {"path": str(autoencoder), "image_size": 16}},
            "transformer": {"init_args": trunk},
            "heads": {"video": head, "action": head},
        },
        "data": {"init_args": {"batch_size": 8, "encoding": {"cache_dir": str(folder / "cache")}}},
        "trainer": {"precision": "32-true", "strategy": "auto", "callbacks": callbacks},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("name", ["libero10", "toolhang"])
def test_rollouts_are_laid_over_an_experiment(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gymnasium")
    over = f"options/{name.removesuffix('10')}_rollouts.yaml"
    files = [word for file in (f"{name}.yaml", "stages/joint.yaml", over) for word in ("--config", file)]
    with pytest.raises(SystemExit) as ended:
        main(["fit", *files, "--print_config"])
    assert ended.value.code == 0
    callbacks = yaml.safe_load(capsys.readouterr().out)["trainer"]["callbacks"]
    classes = [one["class_path"].rpartition(".")[2] for one in callbacks]
    assert classes[0] == "EMA"
    assert classes[-2:] == ["SuiteRollout", "ModelCheckpoint"]
    assert callbacks[-1]["init_args"]["monitor"] == "rollout/score"
    (suite,) = [one["init_args"]["suite"] for one in callbacks if one["class_path"].endswith("SuiteRollout")]
    assert suite in known_suites()
