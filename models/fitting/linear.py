"""A linear model from its coefficients, however they were found."""

from __future__ import annotations

import torch

from models.fitting.task import Task, calibrate_residuals
from models.networks import Network, build_network


def linear_network(task: Task, coefficients: torch.Tensor, constants: torch.Tensor, *, scaled: bool = False) -> Network:
    """A network that forecasts constant + coefficients . window, with intervals from its validation errors.

    Args:
        coefficients: [horizons, lookback * features], oldest bar first, float64.
        constants: [horizons], log returns, float64.
        scaled: the coefficients are those of standardised features: fit the network's scaling on the training span.
            Else a window is taken in its own units.
    """
    with torch.random.fork_rng(devices=()):  # first weights are drawn and thrown away: leave the user's seed alone
        network = build_network(task.model)
    if scaled:
        rows = torch.from_numpy(task.windows.features[task.train_rows])
        network.scaling.fit(rows)
    with torch.no_grad():
        for at in range(len(task.model.horizons)):
            head = network.head(at)
            head.project.weight.copy_(coefficients[at : at + 1])
            head.project.bias.copy_(constants[at])
    network.eval()
    calibrate_residuals(network, task.windows, task.validation_rows)
    return network
