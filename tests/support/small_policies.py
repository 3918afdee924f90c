"""Small policies that compute something, for tests of the server."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence

import numpy as np

HORIZON = 4


class _Follower:
    """Remembers the last positions of one client."""

    def __init__(self, width: int, history: int) -> None:
        self.width, self.seen = width, deque(maxlen=history)

    def prepare(self, message):
        """Check one observation, or forget all."""
        if message.get("function") == "reset":
            self.seen.clear()
            return None
        if unknown := set(message) - {"state", "image", "prompt", "function"}:
            raise ValueError(f"The observation has '{sorted(unknown)[0]}', expected state.")
        state = np.asarray(message.get("state"))
        if state.shape != (self.width,):
            raise ValueError(f"state has the shape {state.shape}, expected ({self.width},).")
        self.seen.append(state.astype(np.float32))
        return np.mean(self.seen, axis=0)

    def close(self):
        """Forget all."""
        self.seen.clear()


class Follower:
    """Go from the mean of the last positions of each client towards the origin; all clients in one product.

    Args:
        width: Numbers of a position.
        history: Positions that a session remembers.
        seconds: How long a call takes at least, whatever is in it: that of a model whose launches dominate.
    """

    def __init__(self, width: int = 3, history: int = 2, seconds: float = 0.0) -> None:
        self.width, self.history, self.seconds = width, history, seconds
        self.batches: list[int] = []

    def metadata(self):
        """Give the facts."""
        return {"uva_protocol": 1, "functions": ["policy", "reset"], "width": self.width}

    def open(self):
        """Begin a session."""
        return _Follower(self.width, self.history)

    def infer(self, prepared: Sequence[np.ndarray | None]):
        """Answer."""
        self.batches.append(len(prepared))
        time.sleep(self.seconds)
        asked = [mean for mean in prepared if mean is not None]
        remaining = np.linspace(1, 0, HORIZON + 1, dtype=np.float32)[1:]
        chunks = iter(np.einsum("h,bw->bhw", remaining, np.stack(asked)) if asked else ())
        return [{} if mean is None else {"actions": next(chunks)} for mean in prepared]


class Fragile(Follower):
    """A follower with a defect: positions above 1 make a whole call fail."""

    def infer(self, prepared):
        """Answer, or break."""
        if any(mean is not None and mean.max() > 1 for mean in prepared):
            raise RuntimeError("overflow")
        return super().infer(prepared)
