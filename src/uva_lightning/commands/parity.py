"""``uva parity``: compare this code with reference numbers of the official one."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch
from tqdm.auto import tqdm

from uva_lightning.parity import autoencoder, heads, losses, normalizers, sampling, tables
from uva_lightning.parity.build import Official
from uva_lightning.parity.folder import Folder
from uva_lightning.parity.ledger import Ledger


def parity(folder: Path) -> int:
    """Compare every quantity of a folder of reference numbers with what this code computes.

    Args:
        folder: Description, inputs and results of each variant, schedules, action heads, autoencoder, normalisers.

    Returns:
        0; 1 if a difference is larger than allowed.
    """
    start, ledger, reference = time.monotonic(), Ledger(), Folder(folder)
    models = [(variant, scale) for variant in reference.variants() for scale in variant.facts["fills"]]
    parts = (tables.compare, normalizers.compare, heads.compare, autoencoder.compare)
    with tqdm(total=len(models) + len(parts), unit="part", desc="parity", disable=None, leave=False) as bar:
        for part in parts:
            with reference.whole(part.__module__.rpartition(".")[2]):
                part(reference, ledger)
            bar.update()
        threads = torch.get_num_threads()
        torch.set_num_threads(
            1
        )  # the models are tiny: waiting for other threads takes longer, on a busy machine 10 times
        for variant, scale in models:
            group = f"{variant.name} {scale}"
            with reference.whole(group):
                model = Official(variant, variant.weights(variant.facts["fills"][scale]))
                results = reference.arrays(f"{variant.name}_{scale}.npz")
                losses.check_modes(model, results)
                losses.compare(model, group, results, ledger)
                sampling.compare(model, group, scale, results, ledger)
            bar.update()
        torch.set_num_threads(threads)
    sys.stdout.write(f"{ledger.table()}\n")
    off = list(ledger.exceeded())
    verdict = f"{len(off)} exceed what is allowed" if off else "all within what is allowed"
    sys.stdout.write(f"{ledger.count} quantities compared in {time.monotonic() - start:.0f} s: {verdict}\n")
    if not off:
        return 0
    group, quantity, entry = off[0]
    sys.stderr.write(
        f"uva: the first that is off: {group}, {quantity}, {entry.name}: {entry.error:.2e}, "
        f"allowed {entry.allowed:.0e}\n"
    )
    return 1
