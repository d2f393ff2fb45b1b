"""Several processes, one run: what `torchrun` starts, or one process alone."""

from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import timedelta

import torch
from torch import Tensor, distributed

from dyn3r.errors import InputError


class Group:
    """The processes that train together. Each draws scenes of its own; gradients are averaged.

    All of them hold the same weights at every step, because they begin with the same and take the
    same steps; nothing but gradients and the wish to stop is exchanged.
    """

    def __init__(self, device: str) -> None:
        """Join the processes that `torchrun` started (its environment variables say so).

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
                    f"{torch.cuda.device_count()} GPUs for more processes: start one for each GPU"
                )
            self.device = f"cuda:{local}"
            torch.cuda.set_device(local)
        backend = "nccl" if device.startswith("cuda") else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(minutes=10))

    @property
    def leads(self) -> bool:
        """True for the one process that writes files and shows progress."""
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

    def any(self, wish: bool) -> bool:
        """True in every process if it is True in one."""
        if self.size == 1:
            return wish
        flag = torch.tensor([float(wish)], device=self.device)
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX)
        return bool(flag.item())

    def leave(self) -> None:
        """Part from the others."""
        if self.size > 1 and distributed.is_initialized():
            distributed.destroy_process_group()
