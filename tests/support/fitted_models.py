"""Models that have seen their data once, for tests of what is done with a trained one."""

import torch

from uva_lightning.model.fitted import fit_together


def fitted(data, make, spec=None):
    """Give the model that ``make`` makes, with random weights; what is fitted on data is."""
    data.setup("fit")
    module = make(spec or data.spec)
    module.tokenizer.fit(data.training_frames())
    fit_together([module.actions, module.proprioception], data.training_numbers())
    rng = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=rng)
    return module.eval()
