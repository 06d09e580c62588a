"""Policy and value networks over sequences [T, n]: two torsos, or one torso with an LSTM over time that both heads share.

Orthogonal initialisation with gains √2 inside, 0.01 for the policy's head and 1 for the value's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mpagents.deep.networks import Torso, linear, quietly
from mpagents.deep.observations import Observation, ObservationCodec
from mpagents.deep.policies import Categorical, Gaussian

State = tuple[Tensor, ...]  # of an LSTM, (h, c) each [n, H]; () without one


@dataclass(frozen=True)
class Sizes:
    """What a policy network is built from."""

    hidden: Sequence[int]
    activation: str
    lstm: int = 0  # hidden units; 0: feed-forward
    initial_log_std: float = 0.0


class PolicyValueNetwork(nn.Module):
    """Observations [T, n, …] → (policy output [T, n, K], value [T, n], states after each step [T, n, H])."""

    def __init__(self, codec: ObservationCodec, head: Categorical | Gaussian, sizes: Sizes, generator: torch.Generator) -> None:
        super().__init__()
        self.codec = codec
        self.torso = Torso(codec, sizes.hidden, sizes.activation, generator)
        features = self.torso.out_features
        self.lstm, self.value_torso = None, None
        if sizes.lstm:
            self.lstm = lstm_cell(features, sizes.lstm, generator)
            features = sizes.lstm
        else:
            self.value_torso = Torso(codec, sizes.hidden, sizes.activation, generator)
        self.policy_head = linear(features, head.out_features, 0.01, generator)
        self.value_head = linear(features, 1, 1.0, generator)
        self.log_std = None
        if head.continuous:
            self.log_std = nn.Parameter(torch.full((head.out_features,), sizes.initial_log_std))
        self.encoder = codec.encoder  # both torsos see through it, and its parameters are the network's
        self.requires_grad_(False)  # gradients are taken by torch.func, of parameters passed in

    def forward(self, observation: Observation, first: Tensor, state: State) -> tuple[Tensor, Tensor, State]:
        """`first` [T, n]: an episode begins, so the state is forgotten; `state`: before the first step."""
        length, n = first.shape
        seen = self.codec.prepare({name: leaf.flatten(0, 1) for name, leaf in observation.items()})
        features = self.torso.features(*seen)
        if self.lstm is None:
            assert self.value_torso is not None
            value = self.value_head(self.value_torso.features(*seen))
            return self._output(features).unflatten(0, (length, n)), value.reshape(length, n), ()
        states = run_lstm(self.lstm, features.unflatten(0, (length, n)), first, state)
        return self._output(states[0]), self.value_head(states[0]).squeeze(-1), states

    def value(self, observation: Observation, first: Tensor, state: State) -> Tensor:
        """Values [T, n] alone."""
        if self.value_torso is None:
            return self(observation, first, state)[1]
        seen = self.codec.prepare({name: leaf.flatten(0, 1) for name, leaf in observation.items()})
        return self.value_head(self.value_torso.features(*seen)).reshape(first.shape)

    def act(self, observation: Observation, first: Tensor, state: State) -> tuple[Tensor, State]:
        """One step [n, …] of the policy alone: (output [n, K], next state)."""
        features = self.torso(observation)
        if self.lstm is None:
            return self._output(features), ()
        states = run_lstm(self.lstm, features.unsqueeze(0), first.unsqueeze(0), state)
        return self._output(states[0][0]), tuple(part[0] for part in states)

    def _output(self, features: Tensor) -> Tensor:
        output = self.policy_head(features)
        return output if self.log_std is None else torch.cat([output, self.log_std.expand_as(output)], dim=-1)

    def initial_state(self, n: int) -> State:
        """Zeros [n, H]; () without an LSTM."""
        if self.lstm is None:
            return ()
        return tuple(self.value_head.weight.new_zeros(n, self.lstm.hidden_size) for _ in range(2))


def lstm_cell(inputs: int, units: int, generator: torch.Generator) -> nn.LSTMCell:
    """Orthogonal weights, zero biases but for the forget gate's, which is 1 (Gers et al. 2000; Jozefowicz et al. 2015)."""
    cell = quietly(nn.LSTMCell, inputs, units)
    for weight in (cell.weight_ih, cell.weight_hh):
        for gate in weight.data.chunk(4):
            nn.init.orthogonal_(gate, 1.0, generator=generator)
    nn.init.zeros_(cell.bias_ih)
    nn.init.zeros_(cell.bias_hh)
    nn.init.ones_(cell.bias_ih.data[units : 2 * units])
    return cell


def run_lstm(cell: nn.LSTMCell, features: Tensor, first: Tensor, state: State) -> State:
    """(h, c) after each step [T, n, H] over features [T, n, F]; forgets where `first` [T, n]."""
    hidden, memory = state
    outputs, memories = [], []
    keep = (~first).to(features.dtype).unsqueeze(-1)  # [T, n, 1]
    for t in range(len(features)):
        hidden, memory = cell(features[t], (hidden * keep[t], memory * keep[t]))
        outputs.append(hidden)
        memories.append(memory)
    return torch.stack(outputs), torch.stack(memories)
