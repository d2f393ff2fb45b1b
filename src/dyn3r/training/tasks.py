"""The task of every family of networks."""

from __future__ import annotations

from torch import nn

from dyn3r.network.many_view.many_view_network import ManyViewNetwork
from dyn3r.training.pair_task import PAIRS
from dyn3r.training.task import Task
from dyn3r.training.views.view_task import VIEWS


def task_of(network: nn.Module) -> Task:
    """The task of a two-view or many-view network."""
    return VIEWS if isinstance(network, ManyViewNetwork) else PAIRS
