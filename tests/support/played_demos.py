"""Short Push-T demonstrations that push the block into the goal, as a replay buffer or as a folder of `uva demos`."""

from __future__ import annotations

import json

import numpy as np

from uva_lightning.envs.pusht import PushT

STEPS = 40
GOAL = (256.0, 256.0, np.pi / 4)


def start(number):
    """Begin with the block to the upper right of the goal and the agent behind it."""
    return np.array([430 - 8 * number, 210 + 4 * number, 296 + 4 * number, 256 - 2 * number, np.pi / 4])


def play(number=0, seed=None):
    """Push towards the lower left for 40 steps; rows precede the action, ``reward`` follows it."""
    env, rows = PushT(), []
    options = {"state": start(number)} if seed is None else None
    observation, info = env.reset(seed=seed, options=options)
    for step in range(STEPS):
        action = np.float32([max(150, 400 - 8 * step), 270 + number])
        row = {"action": action, "agent": observation["agent"], "block": info["block"].astype(np.float32)}
        frames = env.render()
        observation, reward, *_, info = env.step(action)
        rows.append({**row, "frames": frames, "reward": np.float32(reward)})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def replay_buffer(path, episodes=3, change=lambda arrays: arrays):
    """Write zarr as Diffusion Policy does, after an optional change of ``img``, ``action`` and ``state``."""
    import zarr

    played = [play(number) for number in range(episodes)]
    state = [np.concatenate([one["agent"], one["block"]], axis=1) for one in played]
    arrays = {
        "img": np.concatenate([one["frames"] for one in played]),
        "action": np.concatenate([one["action"] for one in played]),
        "state": np.concatenate(state).astype(np.float32),
    }
    root = zarr.open_group(zarr.storage.LocalStore(path), mode="w", zarr_format=2)
    for name, values in change(arrays).items():
        root.create_array(f"data/{name}", data=np.ascontiguousarray(values), chunks=(STEPS, *values.shape[1:]))
    root.create_array("meta/episode_ends", data=STEPS * np.arange(1, episodes + 1))
    return path


def demos(path, seeds=(3, 4)):
    """Write a folder as `uva demos` does."""
    path.mkdir()
    meta = {"format": "uva_lightning demos 1", "env": "pusht", "seed": 3, "candidates": 1, "episodes": len(seeds)}
    (path / "meta.json").write_text(json.dumps(meta))
    for number, seed in enumerate(seeds):
        arrays = play(seed=seed)
        np.savez(path / f"episode_{number:06d}.npz", goal=np.float32(GOAL), seed=np.int64(seed), **arrays)
    return path
