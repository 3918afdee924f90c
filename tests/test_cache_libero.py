"""LIBERO-10's shipped experiment from a cache: instructions, two cameras and augmented variants, resumed exactly."""

from __future__ import annotations

import pytest
import torch

from uva_lightning.cli import main

CONFIGS = ["--config=configs/libero10.yaml", "--config=configs/sizes/smoke.yaml", "--data.encoding.variants=2"]


def fit(data, folder, steps, *options):
    argv = ["fit", *CONFIGS, f"--data.path={data}", f"--trainer.max_steps={steps}", "--trainer.limit_val_batches=0"]
    argv += [f"--trainer.logger.init_args.save_dir={folder}", "--model.sampler.init_args.stages.video.steps=1"]
    argv += ["--model.optimizer.init_args.total_steps=100"]  # the rate must not depend on where a run stops
    assert main([*argv, *options]) == 0
    (file,) = folder.glob("**/last.ckpt")
    return torch.load(file), file


@pytest.mark.slow
def test_training_from_a_cache_equals_training_from_files_and_resumes_exactly(uva, tmp_path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("h5py")
    data, cache = tmp_path / "libero", tmp_path / "cache"
    generate = ("--data.generate=RandomEpisodes", "--data.generate.layout=hdf5", "--data.generate.steps=40")
    files, _ = fit(data, tmp_path / "files", 4, *generate)
    shards = (f"--data.path={data}", "--out", cache, "--workers", 2, "--shard_mb", 1)
    status, said, complaint = uva("cache", *CONFIGS, *shards)
    assert status == 0, complaint
    assert "in 3 variants" in said
    no_vectors = '--data.text={"class_path": "CachedInstructions", "init_args": {"path": "none.safetensors"}}'
    whole, _ = fit(cache, tmp_path / "whole", 4, no_vectors)  # they are in the cache
    _, half = fit(cache, tmp_path / "half", 2)
    resumed, _ = fit(cache, tmp_path / "resumed", 4, f"--ckpt_path={half}")
    assert files["global_step"] == whole["global_step"] == resumed["global_step"] == 4
    for name, weights in whole["state_dict"].items():
        assert torch.equal(weights, resumed["state_dict"][name]), name
        # the cache is encoded by one thread, memory by all, which rounds some halves differently
        torch.testing.assert_close(weights, files["state_dict"][name], rtol=1e-3, atol=1e-5, msg=name)
