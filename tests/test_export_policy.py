"""`uva export-policy`: a file that decides as the model does, without this package."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from uva_lightning import exported, exported_onnx
from uva_lightning.commands import export_policy
from uva_lightning.commands.errors import UserError
from uva_lightning.model.checkpoint import load_module
from uva_lightning.model.fitted import fit_together
from uva_lightning.model.heads.aggregate import ConvFC
from uva_lightning.model.heads.base import ActionHead
from uva_lightning.model.heads.diffusion import GaussianDiffusion
from uva_lightning.policy.windows import WindowPolicy
from uva_lightning.policy_graph import PolicyGraph

ALONE = """
import sys, torch
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("uva_lightning", "lightning", "diffusers", "jsonargparse", "einops"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
from exported import ExportedPolicy
policy = ExportedPolicy(sys.argv[2])
inputs = torch.load(sys.argv[3], weights_only=True)
made = policy(inputs)
del inputs["noise"]
assert not policy(inputs).equal(made)
torch.save({"action": made, "rate": torch.tensor(policy.contract["spec"]["rate_hz"])}, sys.argv[4])
"""


@pytest.fixture(scope="module")
def module(tiny_data, tiny_module):
    data = tiny_data()
    data.setup("fit")
    module = tiny_module(data.spec)
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    return module.eval()


@pytest.fixture(scope="module")
def checkpoint(tiny_run, tmp_path_factory):
    from uva_lightning.cli import main

    folder = tmp_path_factory.mktemp("run")
    assert main(["fit", "--config", str(tiny_run(folder, 2))]) == 0
    return folder / "last.ckpt"


def test_the_graph_decides_as_the_policy(module):
    """At temperature 0, where the noise does not matter."""
    graph = PolicyGraph(module, temperature=0.0, batch=2)
    inputs, policy = graph.examples(1), WindowPolicy(module)
    seen = {"video": {"top": inputs["video.top"].numpy()}, "state": {"agent": inputs["state.agent"].numpy()}}
    with torch.no_grad():
        assert graph(*inputs.values()).numpy() == pytest.approx(policy.act(seen, temperature=0.0), abs=1e-3)


def test_noise_of_the_steps_is_an_input(tiny_module, module):
    def head(shape):
        return ActionHead(shape, lambda *sizes: GaussianDiffusion(*sizes, width=16, depth=1, clip=1.0), ConvFC, steps=5)

    other = tiny_module(module.spec, heads={"action": head, "video": lambda shape: module.heads["video"]})
    other.on_load_checkpoint({"contract": vars(module.spec), "fitted": _fitted(module)})
    graph = PolicyGraph(other.eval())
    assert graph.names == ("video.top", "state.agent", "noise", "step_noise")
    inputs = graph.examples(1)
    assert inputs["step_noise"].shape == (5, 16, 2)
    with torch.no_grad():
        once = graph(*inputs.values())
        assert once.equal(graph(*inputs.values()))
        inputs["step_noise"] = inputs["step_noise"] + 1
        assert not once.equal(graph(*inputs.values()))
    assert "step_noise" not in PolicyGraph(other, steps="dpm5").names


def test_a_file_that_gives_other_numbers_is_found(module, tmp_path, monkeypatch):
    """The comparison sees a difference, also where it is NaN; and a model that gives none has nothing to compare."""
    graph = PolicyGraph(module)

    class Loaded:
        def __init__(self, off):
            self.off = off

        def __call__(self, inputs):
            with torch.no_grad():
                return graph(*inputs.values()) + self.off

    for off in (0.5, float("nan")):
        monkeypatch.setattr(export_policy, "ExportedPolicy", lambda _, off=off: Loaded(off))
        error, largest = export_policy.compare(graph, tmp_path)
        assert largest > 1
        assert error == pytest.approx(off, rel=1e-3, nan_ok=True)
        assert not error <= 1e-4 * largest
    monkeypatch.setattr(graph, "forward", lambda *_: torch.full((1, 16, 2), float("nan")))
    with pytest.raises(UserError, match="own actions are NaN or infinite"):
        export_policy.compare(graph, tmp_path)


def _fitted(module):
    stored = {}
    module.on_save_checkpoint(stored)
    return stored["fitted"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("policy.bin",), "expected a name that ends with .pt2 or .onnx"),
        (("old.pt2",), "old.pt2 exists, expected a new file"),
        (("new.pt2", "--batch", 0), "batch is 0, expected at least 1"),
        (
            ("new.pt2", "--steps", "ddim20"),
            "steps is 'ddim20', a spacing for a diffusion head; this head uses FlowMatching",
        ),
    ],
)
def test_what_cannot_be_exported_is_refused(uva, checkpoint, tmp_path, options, words):
    (tmp_path / "old.pt2").touch()
    status, _, complaint = uva("export-policy", "--ckpt", checkpoint, "--out", tmp_path / options[0], *options[1:])
    assert (status, complaint.count("\n")) == (2, 1)
    assert words in complaint


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++, which compiles the policy")
def test_a_process_with_torch_alone_decides_as_the_model(uva, checkpoint, tmp_path):
    file = tmp_path / "policy.pt2"
    status, said, complaint = uva("export-policy", "--ckpt", checkpoint, "--out", file, "--steps", 2)
    assert status == 0, complaint
    assert "differs from the model by" in said
    assert [path.name for path in tmp_path.iterdir()] == ["policy.pt2"]

    graph = PolicyGraph(load_module(checkpoint)[0], steps=2)
    inputs = graph.examples(7)
    torch.save(inputs, tmp_path / "inputs.pt")
    shutil.copy(exported.__file__, tmp_path)
    (tmp_path / "alone.py").write_text(ALONE)
    command = [sys.executable, str(tmp_path / "alone.py"), str(tmp_path), str(file)]
    paths = [str(tmp_path / name) for name in ("inputs.pt", "made.pt")]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = torch.load(tmp_path / "made.pt", weights_only=True)
    with torch.no_grad():
        expected = graph(*inputs.values())
    assert (made["action"] - expected).abs().max() < 1e-4 * expected.abs().max()
    assert float(made["rate"]) == 10

    policy = exported.ExportedPolicy(str(file))
    with pytest.raises(ValueError, match=r"Input state.agent is float32\[1, 1, 2\], expected float32\[1, 2, 2\]"):
        policy({**inputs, "state.agent": inputs["state.agent"][:, :1]})
    with pytest.raises(ValueError, match="takes no \\['speech'\\]"):
        policy({**inputs, "speech": inputs["noise"]})
    for name, number in (("state.agent", float("nan")), ("noise", float("inf"))):
        spoilt = inputs[name].clone()
        spoilt[0, -1, 0] = number
        with pytest.raises(ValueError, match=f"Input {name} has NaN or infinite numbers, expected finite ones"):
            policy({**inputs, name: spoilt})


WITHOUT_TORCH = """
import sys
import numpy as np
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("uva_lightning", "lightning", "torch", "onnx", "onnxscript"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, sys.argv[1])
from exported_onnx import OnnxPolicy
policy = OnnxPolicy(sys.argv[2])
inputs = dict(np.load(sys.argv[3]))
made = policy(inputs)
del inputs["noise"]
assert not np.array_equal(policy(inputs), made)
np.savez(sys.argv[4], action=made, rate=policy.contract["spec"]["rate_hz"])
"""


@pytest.mark.slow
@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs the extra [onnx]")
def test_an_onnx_file_decides_as_the_model_without_torch(uva, checkpoint, tmp_path):
    file = tmp_path / "policy.onnx"
    status, said, complaint = uva("export-policy", "--ckpt", checkpoint, "--out", file, "--steps", 2)
    assert status == 0, complaint
    assert "differs from the model by" in said
    assert [path.name for path in tmp_path.iterdir()] == ["policy.onnx"]

    graph = PolicyGraph(load_module(checkpoint)[0], steps=2)
    inputs = graph.examples(7)
    np.savez(tmp_path / "inputs.npz", **{name: value.numpy() for name, value in inputs.items()})
    shutil.copy(exported_onnx.__file__, tmp_path)
    (tmp_path / "alone.py").write_text(WITHOUT_TORCH)
    command = [sys.executable, str(tmp_path / "alone.py"), str(tmp_path), str(file)]
    paths = [str(tmp_path / name) for name in ("inputs.npz", "made.npz")]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    made = np.load(tmp_path / "made.npz")
    with torch.no_grad():
        expected = graph(*inputs.values()).numpy()
    assert np.abs(made["action"] - expected).max() < 1e-4 * np.abs(expected).max()
    assert float(made["rate"]) == 10

    policy = exported_onnx.OnnxPolicy(str(file))
    arrays = {name: value.numpy() for name, value in inputs.items()}
    with pytest.raises(ValueError, match=r"Input state.agent is float32\[1, 1, 2\], expected float32\[1, 2, 2\]"):
        policy({**arrays, "state.agent": arrays["state.agent"][:, :1]})
    with pytest.raises(ValueError, match="takes no \\['speech'\\]"):
        policy({**arrays, "speech": arrays["noise"]})
    for name, number in (("state.agent", np.nan), ("noise", -np.inf)):
        spoilt = arrays[name].copy()
        spoilt[0, -1, 0] = number
        with pytest.raises(ValueError, match=f"Input {name} has NaN or infinite numbers, expected finite ones"):
            policy({**arrays, name: spoilt})


def foreign(folder, suffix):
    """Files that no export wrote: bytes, nothing, and something of torch."""
    (folder / f"page{suffix}").write_bytes(b"<!DOCTYPE html>")
    (folder / f"empty{suffix}").touch()
    torch.save({"weights": torch.zeros(2)}, folder / f"weights{suffix}")
    return [folder / f"{name}{suffix}" for name in ("page", "empty", "weights")]


def refused(run, path):
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        run(str(path))
    return str(error.value)


def test_a_file_that_torch_cannot_run_is_refused_in_one_sentence(tmp_path):
    page, empty, weights = foreign(tmp_path, ".pt2")
    for path in (page, empty):
        assert f"{path} is no .pt2 file, expected one of uva export-policy" in refused(exported.ExportedPolicy, path)
    said = refused(exported.ExportedPolicy, weights)
    assert f"{weights} cannot be run by torch {torch.__version__} (" in said
    assert "expected a .pt2 file of uva export-policy" in said
    assert "\n" not in said
    assert f"There is no file {tmp_path / 'no.pt2'}, expected" in refused(exported.ExportedPolicy, tmp_path / "no.pt2")


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="needs the extra [onnx]")
def test_a_file_that_onnxruntime_cannot_run_is_refused_in_one_sentence(tmp_path):
    for path in foreign(tmp_path, ".onnx"):
        said = refused(exported_onnx.OnnxPolicy, path)
        assert f"{path} cannot be run by onnxruntime (" in said
        assert "expected an .onnx file of uva export-policy" in said
        assert "\n" not in said
    assert "There is no file" in refused(exported_onnx.OnnxPolicy, tmp_path / "no.onnx")


def test_without_what_writes_onnx_the_extra_is_named(uva, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(export_policy, "ONNX_MODULES", ("onnx_that_is_not_there",))
    status, _, complaint = uva("export-policy", "--ckpt", checkpoint, "--out", tmp_path / "policy.onnx")
    assert status == 2
    assert "ONNX files need onnx_that_is_not_there, which is not installed; run: pip install" in complaint


def test_a_model_too_large_for_onnx_is_refused(module, tmp_path, monkeypatch):
    monkeypatch.setattr(export_policy, "ONNX_LIMIT", 1000)
    with pytest.raises(UserError, match=r"an ONNX file holds 0\.0 GB; expected a smaller model, or a file policy\.pt2"):
        export_policy.write_onnx(PolicyGraph(module), tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())
