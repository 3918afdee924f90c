"""Compiled training: the same numbers, static shapes, nothing compiled again after the first two steps."""

from __future__ import annotations

import copy
import shutil
import warnings

import pytest
import torch
from lightning.pytorch import Callback, Trainer

from uva_lightning.callbacks.compile import Compile
from uva_lightning.callbacks.ema import EMA
from uva_lightning.model.heads.network import DenoisingMLP
from uva_lightning.model.pieces import Compiled, in_pieces, piece_size
from uva_lightning.model.transformer import Block, LatentTransformer
from uva_lightning.sampler import ObjectiveSampler

STEPS = 12


class Watch(Callback):
    """Remember the losses, what was compiled by the end of each batch, and how many rows the heads had."""

    def __init__(self, compile=None):
        self.compile, self.losses, self.graphs, self.logged = compile, [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))
        if self.compile is not None:
            self.graphs.append(self.compile.graphs)
            self.logged.append(float(trainer.callback_metrics.get("compile/recompilations", -1)))


def fit(folder, data, module, *callbacks, **options):
    defaults = {"max_steps": STEPS, "val_check_interval": 4, "limit_val_batches": 1, "gradient_clip_val": 1.0}
    quiet = {"logger": False, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    torch.manual_seed(0)
    trainer = Trainer(
        default_root_dir=folder,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        num_sanity_val_steps=1,
        log_every_n_steps=1,
        **{**defaults, **quiet, **options},
    )
    trainer.fit(module, datamodule=data)
    return module


def model(tiny_module, data, dropout=0.0, **options):
    """Mixed objectives in shares that do not divide the batch, and random mask ratios."""
    return tiny_module(
        data.spec,
        transformer=lambda shapes: LatentTransformer(shapes, 32, 2, 2, 2, dropout=dropout, **options),
        sampler=lambda objectives: ObjectiveSampler(objectives, {"policy": 0.37, "video": 0.25, "forward": 0.38}),
    )


def both(tmp_path, tiny_data, tiny_module, backend, **options):
    """Train the same model as written and compiled."""
    data, compile = tiny_data(), Compile(backend=backend)
    plain, watched = Watch(), Watch(compile)
    written = fit(tmp_path, data, model(tiny_module, data), EMA(), plain, **options)
    data = tiny_data()
    compiled = fit(tmp_path, data, model(tiny_module, data), EMA(), compile, watched, **options)
    return written, compiled, plain, watched


def test_a_compiled_model_learns_the_same_and_compiles_nothing_again(tmp_path, tiny_data, tiny_module):
    written, compiled, plain, watched = both(tmp_path, tiny_data, tiny_module, "aot_eager")
    assert torch.allclose(torch.tensor(plain.losses), torch.tensor(watched.losses), rtol=1e-4)
    for name, weight in compiled.state_dict().items():
        if isinstance(weight, torch.Tensor):
            assert torch.allclose(weight, written.state_dict()[name], atol=2e-5), name
    assert watched.graphs[1] > 0
    assert watched.graphs == [watched.graphs[0], *watched.graphs[1:2] * (STEPS - 1)]
    assert set(watched.logged) == {0.0}
    assert not any("forward" in vars(part) for part in compiled.modules())  # as it was


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_kernels_are_made_in_the_first_two_steps_only(tmp_path, tiny_data, tiny_module):
    options = {"precision": "bf16-mixed", "accumulate_grad_batches": 2, "max_steps": STEPS // 2}
    _, _, plain, watched = both(tmp_path, tiny_data, tiny_module, "inductor", **options)
    assert torch.allclose(torch.tensor(plain.losses), torch.tensor(watched.losses), rtol=3e-2)
    assert watched.graphs[1] > 0
    assert watched.graphs[1:] == watched.graphs[1:2] * (STEPS - 1)
    assert set(watched.logged) == {0.0}


class Shorten(Callback):
    """Cut a batch short, as a loader with a remainder would."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 4:
            for values in (batch.latents, batch.video, batch.present, batch.state):
                values.update({name: value[:6] for name, value in values.items()})
            object.__setattr__(batch, "action", batch.action[:6])


def test_the_first_recompilation_is_told_with_its_reason(tmp_path, tiny_data, tiny_module):
    data, compile = tiny_data(), Compile(heads=False, backend="aot_eager")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit(tmp_path, data, model(tiny_module, data), compile, Shorten(), max_steps=6)
    told = [str(warning.message) for warning in caught if "compiled again" in str(warning.message)]
    assert len(told) == 1
    assert "rank 0 compiled again at batch 5" in told[0]
    assert "size mismatch" in told[0]
    assert compile.recompilations == 1


def test_blocks_are_computed_again_in_compiled_form_too(tmp_path, tiny_data, tiny_module):
    ends = []
    for again in (False, True):
        data, compile = tiny_data(), Compile(backend="aot_eager")
        module = model(tiny_module, data, dropout=0.1, checkpoint_blocks=again)
        ends.append(fit(tmp_path, data, module, compile, max_steps=3).state_dict())
        assert compile.recompilations == 0
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0] if "extra" not in name)


@pytest.mark.parametrize("rows", [0, 1, 6, 7, 12])
def test_pieces_give_the_same_rows_and_gradients(rows):
    torch.manual_seed(0)
    net = DenoisingMLP(3, 3, 8, 8, 1).double()
    torch.nn.init.normal_(net.output.weight)
    x, time, condition = torch.randn(rows, 3), 1000 * torch.rand(rows), torch.randn(rows, 8)
    inputs = [value.double().requires_grad_(value.ndim > 1) for value in (x, time, condition)]
    sizes, results = [], []

    def run(*piece):
        sizes.append({len(value) for value in piece})
        return type(net).forward(net, *piece).double()

    for result in (run(*inputs), in_pieces(run, 6, *inputs)):
        net.zero_grad()
        result.square().sum().backward()
        gradients = [parameter.grad for name, parameter in net.named_parameters() if "condition" not in name]
        results.append((result, *gradients))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results, strict=True))
    assert sizes[1:] == [{6}] * max(1, -(-rows // 6))  # one shape, and one piece without any rows


class TwiceBackward(Callback):
    """Go backward through a head once more, as a balancer that compares gradients does."""

    def on_before_backward(self, trainer, pl_module, loss):
        (self.last,) = torch.autograd.grad(loss, pl_module.heads["video"].denoiser.net.output.weight, retain_graph=True)


def test_a_balancer_may_go_backward_through_compiled_heads(tmp_path, tiny_data, tiny_module):
    ends = []
    for callbacks in ([], [TwiceBackward()]):
        data, compile = tiny_data(), Compile(backend="aot_eager")
        ends.append(fit(tmp_path, data, model(tiny_module, data), compile, *callbacks, max_steps=3).state_dict())
        assert compile.recompilations == 0
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0] if "extra" not in name)


def test_a_copy_of_a_compiled_part_has_its_own_weights():
    block = Block(8, 2, 1.0, 0.0, torch.nn.GELU)
    block.forward = Compiled(block, torch.compile(Block.forward, backend="eager"))
    other = copy.deepcopy(block)
    torch.nn.init.zeros_(other.mlp[3].weight)
    x = torch.randn(1, 3, 8)
    assert not torch.equal(other(x), block(x))
    assert other.forward.module is other


@pytest.mark.parametrize(
    ("options", "words"),
    [({"mode": "reduce-overhead"}, "CUDA graphs"), ({"pieces": 0}, "pieces is 0")],
)
def test_what_cannot_work_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        Compile(**options)


def test_a_missing_compiler_is_named_before_training(tmp_path, tiny_data, tiny_module, monkeypatch):
    monkeypatch.setenv("PATH", "")
    data = tiny_data()
    with pytest.raises(ValueError, match=r"a C\+\+ compiler"):
        fit(tmp_path, data, model(tiny_module, data), Compile())


def test_the_size_of_a_piece_covers_a_whole_batch():
    assert piece_size(1000, 16) == 63
    assert piece_size(3, 16) == 1
