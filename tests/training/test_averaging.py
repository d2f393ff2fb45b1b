"""The exponential moving average of weights."""

from __future__ import annotations

import pytest
import torch

from dyn3r.training.averaging import update_average


def test_the_average_is_the_weighted_sum_of_all_weights() -> None:
    average, total = [torch.tensor([2.0])], 2.0
    for step in range(200):
        update_average(average, [torch.tensor([float(step)])], 0.9, step)
        decay = min(0.9, (1 + step) / (10 + step))
        total = decay * total + (1 - decay) * step
    assert float(average[0]) == pytest.approx(total, rel=1e-5)
    assert float(average[0]) == pytest.approx(199 - 9, abs=0.01)  # a window of 1 / (1 - 0.9)


def test_the_start_is_soon_forgotten_and_decay_0_keeps_nothing() -> None:
    average = [torch.tensor([1000.0]), torch.tensor([1000.0])]
    for step in range(20):
        update_average(average[:1], [torch.tensor([1.0])], 0.999, step)
    assert float(average[0]) < 1.1  # a decay of 0.999 alone would leave 980
    update_average(average[1:], [torch.tensor([3.0])], 0.0, 5)
    assert average[1].tolist() == [3.0]
    weight = torch.nn.Parameter(torch.ones(1))
    update_average(average[1:], [weight], 0.5, 100)
    assert not average[1].requires_grad
