"""KL-16: posterior, latents and decoder at full size."""

from __future__ import annotations

import torch

from uva_lightning.model.tokenizers.kl16 import SCALE, build_kl16, from_official
from uva_lightning.parity.folder import Folder
from uva_lightning.parity.ledger import EXACT, FLOAT32, Ledger
from uva_lightning.parity.losses import statistics
from uva_lightning.parity.naming import fill, uniform

GROUP, LOWEST, HIGHEST = "KL-16", -30.0, 20.0


@torch.no_grad()
@torch.backends.mkldnn.flags(enabled=False, allow_tf32=None)
def compare(folder: Folder, ledger: Ledger) -> None:
    """Compare every image under every weight scale; without oneDNN, whose convolutions round more coarsely."""
    facts, numbers = folder.json("vae.json"), folder.arrays("vae.npz")
    prefix, norms = str(facts["fill_prefix"]), set(facts["norm_weight_names"])
    images = sorted({name.split("/")[0] for name in numbers if name.endswith("/x")})
    autoencoder = build_kl16().eval()
    for scale, deviation in facts["fills"].items():
        state = {name: fill(prefix + name, shape, deviation, name in norms) for name, shape, _ in facts["keys"]}
        autoencoder.load_state_dict(from_official(state))
        for image in images:
            shape = (len(numbers[f"{image}/x"]), 3, *(int(image.removeprefix("img")),) * 2)
            x = 2 * uniform(f"{prefix.removesuffix('vae/')}input/vae/{image}", shape) - 1
            stored = numbers[f"{image}/x"]
            ledger.compare(GROUP, "images", image, x[..., : stored.shape[-2], : stored.shape[-1]], stored, EXACT)
            group = f"{GROUP} {scale}"
            mean, log_variance = autoencoder.encode(x).latent_dist.parameters.chunk(2, dim=1)
            log_variance = log_variance.clamp(LOWEST, HIGHEST)
            drawn = (mean + (0.5 * log_variance).exp() * numbers[f"{image}/posterior_noise"]) * SCALE
            decoded = autoencoder.decode(numbers[f"{image}/decode_z"]).sample
            ours = {"mean": mean, "logvar_clamped": log_variance, f"sample_times_{SCALE}": drawn}
            ours["decode_stats"] = statistics(decoded)
            for name in (name for name in numbers if name.startswith(f"{scale}/{image}/")):
                quantity = name.rpartition("/")[2]
                _, _, stride = quantity.partition("_stride")
                value = decoded[..., :: int(stride), :: int(stride)] if stride else ours[quantity]
                ledger.compare(group, "autoencoder", f"{image}/{quantity}", value, numbers[name], FLOAT32)
