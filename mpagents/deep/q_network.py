"""A network of action values, plain or dueling."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mpagents.deep.networks import Torso, linear
from mpagents.deep.observations import Observation, ObservationCodec
from mpagents.deep.targets import dueling


@torch.no_grad()
def spread_kinks(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases of every layer from U(±1/√inputs), torch's default.

    Biases matter: with none, all kinks of ReLUs go through the origin, which is where CartPole's pole stands upright. With
    orthogonal weights and zero biases greedy means after 50,000 steps were 76–499 on 8 seeds, with these 291–500.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            if layer.bias is not None:
                layer.bias.uniform_(-bound, bound, generator=generator)


class QNetwork(nn.Module):
    """Observation → Q [B, A]; `dueling`: as a value and advantages over one torso (Wang et al. 2016)."""

    def __init__(
        self, codec: ObservationCodec, num_actions: int, hidden_sizes: Sequence[int], activation: str, dueling: bool,
        generator: torch.Generator,
    ) -> None:  # fmt: skip
        super().__init__()
        self.torso = Torso(codec, hidden_sizes, activation, generator)
        self.advantage = linear(self.torso.out_features, num_actions, 1.0, generator)
        self.value = linear(self.torso.out_features, 1, 1.0, generator) if dueling else None
        spread_kinks(self, generator)
        self.encoder = codec.encoder  # its parameters are the network's

    def forward(self, observation: Observation) -> Tensor:
        features = self.torso(observation)
        advantage = self.advantage(features)
        return advantage if self.value is None else dueling(self.value(features), advantage)
