"""One experiment file laid over another."""

from __future__ import annotations

import pytest
import yaml

from uva_lightning.commands.configs import resolve_configs
from uva_lightning.commands.merge import merge_configs, overlay

BASE = {
    "model": {
        "tokenizer": {"class_path": "KLVAE", "init_args": {"path": "vae", "scale": 0.2}},
        "objectives": {"policy": "RobotPolicy", "video": {"class_path": "VideoModel", "init_args": {"weight": 2.0}}},
        "heads": {"video": {"class_path": "VideoHead", "init_args": {"steps": 100, "denoiser": {"class_path": "D"}}}},
    },
    "data": {"class_path": "PushT", "init_args": {"path": "x", "cache_dir": "latents", "window": {"frames": 4}}},
    "trainer": {"max_steps": 10, "callbacks": ["EMA"], "precision": "bf16-mixed", "limit_val_batches": 3},
}


def model(**over):
    return overlay(BASE, {"model": over})["model"]


def test_mappings_are_merged_and_values_replaced():
    merged = overlay(
        BASE, {"data": {"init_args": {"path": "y", "window": {"pad": [0, 0]}}}, "trainer": {"callbacks": []}}
    )
    assert merged["data"] == {
        "class_path": "PushT",
        "init_args": {"path": "y", "cache_dir": "latents", "window": {"frames": 4, "pad": [0, 0]}},
    }
    assert merged["trainer"] == {**BASE["trainer"], "callbacks": []}
    assert merged["model"] == BASE["model"]
    assert BASE["data"]["init_args"]["path"] == "x"


def test_a_key_with_a_plus_adds_to_the_list_below():
    merged = overlay(BASE, {"trainer": {"callbacks+": ["VideoGrid", "Throughput"], "plugins+": "One"}})
    assert merged["trainer"] == {
        **BASE["trainer"],
        "callbacks": ["EMA", "VideoGrid", "Throughput"],
        "plugins": ["One"],
    }
    assert overlay(merged, {"trainer": {"callbacks+": ["EMA"]}})["trainer"]["callbacks"][-2:] == ["Throughput", "EMA"]
    assert BASE["trainer"]["callbacks"] == ["EMA"]
    one = {"class_path": "EMA", "init_args": {"power": 0.5}}
    for below, listed in (("EMA", ["EMA"]), (one, [one]), (None, [])):
        base = {"trainer": {"callbacks": below}}
        assert overlay(base, {"trainer": {"callbacks+": "VideoGrid"}})["trainer"]["callbacks"] == [*listed, "VideoGrid"]
    own = {"callbacks": ["Compile"], "callbacks+": ["VideoGrid"]}
    assert overlay(BASE, {"trainer": own})["trainer"]["callbacks"] == ["Compile", "VideoGrid"]
    assert overlay(BASE, {"trainer": {"callbacks+": None}}) == BASE


def test_another_class_replaces_the_entry_and_the_same_keeps_its_arguments():
    other = {"class_path": "LinearPatches", "init_args": {"grid": 16}}
    assert model(tokenizer=other)["tokenizer"] == other
    assert model(tokenizer="LinearPatches")["tokenizer"] == "LinearPatches"
    assert model(tokenizer="uva_lightning.model.KLVAE")["tokenizer"] == BASE["model"]["tokenizer"]
    same = {"class_path": "KLVAE", "init_args": {"scale": 1.0}}
    assert model(tokenizer=same)["tokenizer"]["init_args"] == {"path": "vae", "scale": 1.0}


def test_entries_are_added_changed_and_taken_away():
    merged = model(objectives={"goal": "GoalReaching", "policy": {"init_args": {"weight": 3.0}}, "video": None})
    assert merged["objectives"] == {
        "policy": {"class_path": "RobotPolicy", "init_args": {"weight": 3.0}},
        "goal": "GoalReaching",
    }
    assert model(objectives={"policy": None, "inverse": None})["objectives"] == {
        "video": BASE["model"]["objectives"]["video"]
    }
    deep = model(heads={"video": {"init_args": {"denoiser": {"init_args": {"width": 16}}}}})["heads"]["video"]
    assert deep["init_args"] == {"steps": 100, "denoiser": {"class_path": "D", "init_args": {"width": 16}}}


def test_null_is_a_value_where_it_is_an_argument():
    merged = overlay(
        BASE,
        {
            "data": {"init_args": {"cache_dir": None, "workers": None}},
            "trainer": {"check_val_every_n_epoch": None, "precision": None},
        },
    )
    assert merged["data"]["init_args"]["cache_dir"] is None
    assert merged["data"]["init_args"]["workers"] is None
    assert (merged["trainer"]["check_val_every_n_epoch"], merged["trainer"]["precision"]) == (None, None)
    assert model(tokenizer=None) == {key: value for key, value in BASE["model"].items() if key != "tokenizer"}


def test_arguments_of_an_entry_that_is_not_there_are_left_out_and_told(tmp_path, capsys):
    skipped = []
    merged = overlay(BASE, {"model": {"heads": {"wrist": {"init_args": {"steps": 2}}}}}, skipped)
    assert merged == BASE
    assert skipped == ["model.heads.wrist"]
    for name, content in (("base", BASE), ("over", {"model": {"heads": {"wrist": {"init_args": {"steps": 2}}}}})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content))
    merge_configs(["fit", "--config", str(tmp_path / "base.yaml"), "-c", str(tmp_path / "over.yaml")])
    assert "left out, as the configs before have no such entry: over.yaml changes model.heads.wrist." in (
        capsys.readouterr().err
    )


def test_a_command_line_gets_one_file_and_keeps_its_options(tmp_path):
    (tmp_path / "mine.yaml").write_text("trainer: {max_steps: 3}\nmodel: {optimizer: {init_args: {lr: 1.0e-05}}}\n")
    alone = resolve_configs(["fit", "--config", "pusht"])
    assert merge_configs(alone) == alone
    argv = ["fit", "--config", "pusht", "--trainer.devices", "2", f"--config={tmp_path / 'mine.yaml'}", "--x=-1"]
    command, option, file, *rest = merge_configs(resolve_configs(argv))
    assert (command, option, rest) == ("fit", "--config", ["--trainer.devices", "2", "--x=-1"])
    with open(file) as stream:
        merged = yaml.safe_load(stream)
    assert merged["trainer"]["max_steps"] == 3
    assert merged["model"]["optimizer"]["init_args"]["lr"] == pytest.approx(1e-5)
    assert merged["model"]["optimizer"]["init_args"]["weight_decay"] == 0.02
