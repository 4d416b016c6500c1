"""Matrix products that round the same way wherever a window lies in its batch.

A row of numbers that does not fill whole blocks of 16 bytes starts at another place of such a block in each row, and
libraries of linear algebra then add up its products in another order (measured: MKL, with fewer than 16 outputs). A
forecast would depend, in its last bits, on how many others were made before it. So rows are filled up with zeros.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

BLOCK = 4  # numbers of 32 bits in 16 bytes


def filled(size: int) -> int:
    """The size of a row of whole blocks that holds ``size`` numbers."""
    return -(-size // BLOCK) * BLOCK


class AlignedLinear(nn.Linear):
    """``nn.Linear`` over rows of whole blocks; the parameters are those of ``nn.Linear``."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """[..., in_features] -> [..., out_features]."""
        missing = filled(self.in_features) - self.in_features
        weight = self.weight
        if missing:
            inputs, weight = functional.pad(inputs, (0, missing)), functional.pad(weight, (0, missing))
        return functional.linear(inputs, weight, self.bias)


class AlignedRecurrent(nn.Module):
    """``nn.RNN``, ``nn.GRU`` or ``nn.LSTM`` over rows of whole blocks: units are added whose state is always zero.

    Args:
        layers: the recurrent layers, whose parameters these are; ``batch_first``, with biases.
    """

    def __init__(self, layers: nn.RNNBase) -> None:
        super().__init__()
        self.layers = layers
        self._inputs, self._hidden = layers.input_size, layers.hidden_size
        self._added_inputs = filled(self._inputs) - self._inputs
        self._added_units = filled(self._hidden) - self._hidden

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        """[batch, lookback, inputs] -> states of the top layer, [batch, lookback, directions * hidden]."""
        if not self._added_inputs and not self._added_units:
            states: torch.Tensor = self.layers(windows)[0]
            return states
        layers = self.layers
        function: Any = {"RNN_TANH": torch.rnn_tanh, "GRU": torch.gru, "LSTM": torch.lstm}[layers.mode]
        directions = 2 if layers.bidirectional else 1
        start = windows.new_zeros(layers.num_layers * directions, len(windows), filled(self._hidden))
        outputs = function(
            functional.pad(windows, (0, self._added_inputs)),
            (start, start) if layers.mode == "LSTM" else start,
            [self._filled(name, parameter) for name, parameter in layers.named_parameters()],
            True,
            layers.num_layers,
            layers.dropout,
            self.training,
            layers.bidirectional,
            True,
        )
        found: torch.Tensor = outputs[0].view(*windows.shape[:2], directions, -1)[..., : self._hidden]
        return found.flatten(2).contiguous()  # what reads a part of a row may round by its place, too

    def _filled(self, name: str, parameter: torch.Tensor) -> torch.Tensor:
        """A weight [gates * hidden, columns] or a bias [gates * hidden] with zeros for the units that are added."""
        gates = parameter.view(-1, self._hidden, *parameter.shape[1:])
        if name.startswith("bias"):
            return functional.pad(gates, (0, self._added_units)).flatten()
        if name.startswith("weight_ih_l0"):
            gates = functional.pad(gates, (0, self._added_inputs))
        else:  # a state of one or both directions, each with its own added units
            parts = gates.view(*gates.shape[:2], -1, self._hidden)
            gates = functional.pad(parts, (0, self._added_units)).flatten(2)
        return functional.pad(gates, (0, 0, 0, self._added_units)).flatten(0, 1)
