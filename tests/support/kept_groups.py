"""Process groups of a program that trains many times in one process."""

from __future__ import annotations

import torch


def keep_groups():
    """Let groups live until the process ends.

    Each ``fit`` of Lightning makes a group for one barrier and destroys it. Gloo's thread may still be at work on its
    connections; on busy cores a process of many trainings has died of that (a segmentation fault in gloo_tcp_loop).
    """
    destroy = torch.distributed.destroy_process_group
    torch.distributed.destroy_process_group = lambda group=None: destroy() if group is None else None
