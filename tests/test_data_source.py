"""Commands take their data set as `uva fit` does."""

import pytest
import yaml

from uva_lightning.commands.data_source import data_from, run_command, takes_data
from uva_lightning.commands.errors import UserError
from uva_lightning.datamodules.base import RobotDataModule
from uva_lightning.datamodules.libero10 import Libero10
from uva_lightning.datamodules.pusht import PushT


def size(kind: str, data: RobotDataModule, most: int = 3) -> tuple[str, str, int, int]:
    """Say what was given.

    Args:
        kind: A word.
        data: A data set.
        most: A number.
    """
    return kind, type(data).__name__, data.batch_size, most


def test_data_of_an_experiment_with_options_over_it():
    data = data_from(["--config", "configs/libero10.yaml", "--data.path", "here", "--data.text", "null"])
    assert isinstance(data, Libero10)
    assert (str(data.path), data.batch_size, data.text) == ("here", 256, None)


def test_data_by_class_alone():
    data = data_from(["--data", "PushT", "--data.path=there", "--data.window.frames", "2"])
    assert isinstance(data, PushT)
    assert (str(data.path), data.spec.frames) == ("there", 2)


def test_configs_are_laid_over_one_another(tmp_path):
    (tmp_path / "more.yaml").write_text(yaml.safe_dump({"data": {"init_args": {"batch_size": 7}}}))
    data = data_from(["--config", "pusht", "--config", str(tmp_path / "more.yaml")])
    assert (type(data), data.batch_size, data.window.pad) == (PushT, 7, (1, 7))


@pytest.mark.parametrize(
    "argv", [["big", "--config=pusht", "--most", "5"], ["--config=pusht", "--most=5", "--kind=big"]]
)
def test_a_command_has_options_of_its_own_too(argv):
    assert takes_data(size)
    assert run_command(size, argv, "uva size") == ("big", "PushT", 256, 5)


def test_a_command_without_data_set():
    def double(number: int) -> int:
        return 2 * number

    assert not takes_data(double)
    assert run_command(double, ["4"], "uva double") == 8


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--data", "PushTT", "--data.path", "p"], "No class is called 'PushTT'. Did you mean 'PushT'?"),
        (["--data", "PushT", "--data.pat", "p"], "PushT: Unknown key 'pat'. Did you mean 'path'?"),
        (["--data", "PushT"], "PushT: Missing: path; give it as an option"),
        ([], "Missing: data; give it as an option"),
        (["--config", "mixture"], "'Mixture' is a class of another kind than is expected here; --help says which"),
        (["--config", "pusht", "--fast"], "Unknown option '--fast'."),
    ],
)
def test_mistakes_are_told_in_one_line(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        data_from(argv, "uva inspect")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"uva inspect: error: {words}")
    assert said.count("\n") == 1


def test_a_config_without_data():
    with pytest.raises(UserError, match=r"small\.yaml has no 'data:', expected an experiment"):
        data_from(["--config", "configs/sizes/small.yaml"])
    with pytest.raises(UserError, match="No config 'nope'"):
        data_from(["--config", "nope"])


def test_what_a_constructor_refuses():
    with pytest.raises(ValueError, match="batch_size is 0, expected at least 1"):
        data_from(["--config", "pusht", "--data.batch_size", "0"])
