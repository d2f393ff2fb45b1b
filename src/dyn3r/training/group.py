"""Process group of a training run: the processes that `torchrun` starts, or a single one."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
from torch import Tensor, distributed

from dyn3r.errors import InputError


class Group:
    """Processes that train together: each renders its own scenes, gradients are averaged.

    All processes hold the same weights at every step, because they start with the same weights and
    take the same steps. Only gradients and the flag to stop are exchanged.
    """

    def __init__(self, device: str) -> None:
        """Join the processes of `torchrun`, as its environment variables say.

        Raises InputError if there are more processes than GPUs on this machine.
        """
        self.size = int(os.environ.get("WORLD_SIZE", "1"))
        self.rank = int(os.environ.get("RANK", "0")) if self.size > 1 else 0
        self.device = device
        if self.size == 1:
            return
        if device.startswith("cuda"):
            local = int(os.environ.get("LOCAL_RANK", "0"))
            if local >= torch.cuda.device_count():
                raise InputError(
                    f"more processes than the {torch.cuda.device_count()} GPUs: start one per GPU"
                )
            self.device = f"cuda:{local}"
            torch.cuda.set_device(local)
        backend = "nccl" if device.startswith("cuda") else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(minutes=10))

    @property
    def leads(self) -> bool:
        """Whether this process writes files and reports progress (rank 0)."""
        return self.rank == 0

    def average_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its mean over the processes, in one exchange."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        flat /= self.size
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients])):
            gradient.copy_(mean.view_as(gradient))

    def any(self, *, flag: bool) -> bool:
        """Return True in every process if the flag is True in one."""
        if self.size == 1:
            return flag
        largest = torch.tensor([float(flag)], device=self.device)
        distributed.all_reduce(largest, op=distributed.ReduceOp.MAX)
        return bool(largest.item())

    def leave(self) -> None:
        """Leave the process group."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
