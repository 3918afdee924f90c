"""The `uva` command: quick where it can be, and short when something is wrong."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from command_line import distribution, python
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.demos.boring_classes import BoringModel

from uva_lightning.callbacks.run_record import RunRecord
from uva_lightning.cli import COMMANDS, TRAINING, main
from uva_lightning.commands.configs import find_config, resolve_configs, shipped
from uva_lightning.commands.discovery import GROUP, load_entry_points
from uva_lightning.commands.errors import UserError, for_user, hint

SOURCE = Path(__file__).parents[1] / "src"
EXPERIMENT = shipped()["quickstart.yaml"].read_text()
TOY = """
import sys, time
import lightning.pytorch as pl, torch
from torch.utils.data import DataLoader
from uva_lightning.commands.training import launch

class Toy(pl.LightningModule):
    def __init__(self, spec: int) -> None:
        super().__init__()
        self.net = torch.nn.Linear(spec, 1)
    def training_step(self, batch, batch_idx):
        time.sleep(0.05)
        return self.net(batch).mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

class Data(pl.LightningDataModule):
    spec = 4
class Noise(Data):
    def train_dataloader(self):
        return DataLoader(torch.randn(512, 4))

try:
    launch(Toy, Data)
except KeyboardInterrupt:
    sys.exit(130)
"""


def uva(*args: str) -> int:
    """Run a command in this process and give its exit status."""
    try:
        return main(args)
    except SystemExit as stop:
        return int(stop.code or 0)


@pytest.fixture(autouse=True)
def own_argv(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["uva"])


# -- the overview ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--help"], [], ["--version"]])
def test_overview_imports_nothing_heavy(args):
    heavy = "{'torch', 'lightning', 'numpy', 'jsonargparse'} & set(sys.modules)"
    start = time.perf_counter()
    done = python("-c", f"import sys; from uva_lightning.cli import main; main({args}); assert not {heavy}, {heavy}")
    assert done.returncode == 0, done.stderr
    assert time.perf_counter() - start < 2
    if args != ["--version"]:
        assert all(f"\n  {name} " in done.stdout for name in [*TRAINING, *COMMANDS])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    assert uva(*command.split(), "--help") == 0
    assert f"usage: uva {command}" in capsys.readouterr().out


def test_unknown_command_names_the_nearest(capsys):
    assert uva("doctr") == 2
    assert capsys.readouterr().err == "uva: error: There is no command 'doctr'. Did you mean 'doctor'?\n"


def test_a_group_of_commands_has_an_overview_of_its_own(capsys):
    for args in (["data"], ["data", "--help"]):
        assert uva(*args) == 0
        shown = capsys.readouterr().out
        assert shown.startswith("usage: uva data COMMAND")
        assert all(f"\n  {name} " in shown for name in ("data inspect", "data check"))
        assert "quickstart" not in shown


def test_unknown_command_of_a_group(capsys):
    assert uva("data", "chek", "--every", "2") == 2
    assert capsys.readouterr().err == "uva: error: There is no command 'data chek'. Did you mean 'check'?\n"


def test_misspelt_option_of_a_command(capsys):
    assert uva("demos", "pusht", "--episods", "3") == 2
    assert capsys.readouterr().err == "uva demos: error: Unknown option '--episods'. Did you mean '--episodes'?\n"


def test_objectives_says_what_each_sees_and_where_it_is_from(capsys):
    assert uva("objectives") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["objective", "sees", "predicts", "from"]
    (policy,) = (line for line in lines if line.startswith("RobotPolicy "))
    assert policy.split() == ["RobotPolicy", "history", "action", "uva_lightning.objectives.robot_policy"]


# -- mistakes in a config -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "wrong", "nearest"),
    [
        ("policy: RobotPolicy", "policy: RobotPolcy", "RobotPolicy"),
        ("policy: RobotPolicy", "policy: {class_path: RobotPolcy}", "RobotPolicy"),
        ("class_path: PushT", "class_path: PushTT", "PushT"),
        ("class_path: FlowMatching", "class_path: FlowMatchin", "FlowMatching"),
        ("class_path: LatentTransformer", "class_path: LatentTransfrmer", "LatentTransformer"),
        ("class_path: ModelCheckpoint", "class_path: ModelCheckpont", "ModelCheckpoint"),
        ("objectives:", "objectivs:", "model.objectives"),
        ("model:", "modle:", "model"),
        ("batch_size: 64", "batchsize: 64", "batch_size"),
        ("denoiser:", "denoisr:", "denoiser"),
        ("width: 192", "widht: 192", "width"),
        ("frames: 2", "framse: 2", "frames"),
        ("save_last: true", "savelast: true", "save_last"),
        ("policy: RobotPolicy", "policy: {class_path: RobotPolicy, init_args: {weigth: 2}}", "weight"),
        ("  actions:", "  objectivs: {}\n  actions:", "model.objectives"),
        ("batch_size: 64", "batchsize: {}", "data.init_args.batch_size"),
        ("policy: RobotPolicy", "policy: uva_lightning.objectives.robot_policy.RobotPolcy", "RobotPolicy"),
    ],
)
def test_misspelling_names_the_nearest_in_one_line(tmp_path, capsys, right, wrong, nearest):
    config = tmp_path / "config.yaml"
    assert right in EXPERIMENT
    config.write_text(EXPERIMENT.replace(right, wrong, 1))
    assert uva("fit", "--config", str(config)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("uva")
    assert line.endswith(f"Did you mean '{nearest}'?")


def test_abbreviated_option_is_a_mistake(capsys):
    assert uva("fit", "--config", "quickstart", "--trainer.max_step=3") == 2
    assert capsys.readouterr().err.endswith("Did you mean '--trainer.max_steps'?\n")


def test_what_a_constructor_refuses_is_told_without_traceback(tmp_path, capsys):
    config = tmp_path / "config.yaml"
    config.write_text(EXPERIMENT.replace("batch_size: 64", "batch_size: 0"))
    assert uva("fit", "--config", str(config)) == 2
    assert "uva: error: batch_size is 0, expected at least 1." in capsys.readouterr().err


def test_debug_shows_the_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("UVA_DEBUG", "1")
    with pytest.raises(UserError, match="No config 'nowhere.yaml'"):
        main(["fit", "--config", "nowhere.yaml"])


def test_printed_config_loads_again_from_any_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "config.yaml"
    assert uva("fit", "--config", "configs/quickstart.yaml", "--print_config") == 0
    printed = capsys.readouterr().out
    assert "class_path: uva_lightning.objectives.robot_policy.RobotPolicy" in printed
    config.write_text(printed)
    assert uva("fit", "--config", str(config), "--print_config") == 0
    assert capsys.readouterr().out == printed


def test_shipped_configs_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = shipped()["quickstart.yaml"]
    for name in ("configs/quickstart.yaml", "quickstart.yaml", "quickstart"):
        assert find_config(name) == path
    for name in ("configs/sizes/small.yaml", "sizes/small"):
        assert find_config(name) == shipped()["sizes/small.yaml"]
    assert resolve_configs(["fit", "-c", "quickstart", "--config=quickstart", "--x", "-1"]) == [
        *("fit", "-c", str(path), f"--config={path}", "--x", "-1")
    ]
    (tmp_path / "quickstart.yaml").touch()
    assert find_config("quickstart.yaml") == tmp_path / "quickstart.yaml"
    with pytest.raises(UserError, match=r"No config 'configs/quikstart.yaml' .* Did you mean 'quickstart.yaml'\?"):
        find_config("configs/quikstart.yaml")


# -- objectives of other packages -----------------------------------------------------------------------------------


def test_broken_entry_point_names_its_package(tmp_path, monkeypatch):
    distribution(tmp_path, "broken_pack", "1.0", f"[{GROUP}]\nreach = broken_pack_module:Reach\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=r"'reach' of package 'broken_pack' .* pip uninstall broken_pack"):
        load_entry_points()


# -- errors ---------------------------------------------------------------------------------------------------------


def test_hint():
    assert hint("robotpolicy", ["RobotPolicy", "VideoModel"]) == " Did you mean 'RobotPolicy'?"
    assert hint("x", ["b", "a"]) == " Known: a, b."
    assert hint("x", []) == ""


def test_defects_keep_their_traceback():
    for defect in (ValueError("raised by a test, not by the package"), TypeError("x"), RuntimeError("x")):
        assert for_user(defect) is None
    assert for_user(ModuleNotFoundError("No module named 'pymunk'", name="pymunk")) == (
        "pymunk is not installed; run: pip install 'uva_lightning[sim]'"
    )
    assert for_user(ModuleNotFoundError("No module named 'x'", name="uva_lightning.x")) is None


# -- the record of a run --------------------------------------------------------------------------------------------


def test_run_record_is_in_the_folder_and_in_every_checkpoint(tmp_path):
    parser = LightningArgumentParser()
    parser.add_argument("--lr", type=float, default=0.5)
    record = RunRecord(parser, parser.parse_args([]))
    options = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(default_root_dir=tmp_path, max_steps=1, limit_val_batches=0, callbacks=[record], **options)
    trainer.fit(BoringModel())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    text = (tmp_path / "config.yaml").read_text()
    assert yaml.safe_load(text) == {"lr": 0.5}
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["config"] == text
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.slow
def test_ctrl_c_saves_says_where_and_can_go_on(tmp_path):
    script, config = tmp_path / "toy.py", tmp_path / "toy.yaml"
    script.write_text(TOY)
    config.write_text("data: {class_path: Noise}\ntrainer: {accelerator: cpu, logger: false, max_steps: 400}\n")
    env = os.environ | {"PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    run = [sys.executable, str(script), "fit", "--config", str(config)]
    process = subprocess.Popen(
        run,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=env,
        cwd=tmp_path,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job inherits "ignore"
    )
    while not (tmp_path / "config.yaml").exists():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    (advice,) = (line for line in errors.splitlines() if "go on with: uva " in line)
    again = advice.partition("go on with: uva ")[2].split()
    assert torch.load(again[-1], weights_only=True)["global_step"] > 0
    done = subprocess.run(
        [*run[:2], *again, "--trainer.max_steps=60"], env=env, cwd=tmp_path, capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_a_checkpoint_that_is_not_there_is_told_before_data_are_read(uva, tmp_path):
    status, said, complaint = uva("fit", "--config", "quickstart", "--ckpt_path", tmp_path / "none.ckpt")
    assert status == 2
    assert complaint.endswith(
        f"There is no checkpoint {tmp_path / 'none.ckpt'}, expected a file that 'uva fit' wrote; set --ckpt_path.\n"
    )
    assert "Push" not in said
