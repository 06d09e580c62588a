"""What a step of a world brings beside the observation: a reward, and whether it ends the episode.

    p(r | s) = N(r; r̂(s), σ²),   p(end | s) = Bernoulli(σ(ê(s))),   s: features of the state that was reached

Both are judged on the state that a step leads to. σ is fixed, for the reward's mean is what is wanted of it.
"""

from __future__ import annotations

from torch import Tensor, nn

from generative.likelihoods import Bernoulli, Gaussian
from generative.networks.mlp import MLP


class Outcome(nn.Module):
    """Features [..., F] → reward and logit of the end, [...] each."""

    def __init__(self, in_features: int, hidden_sizes: tuple[int, ...], activation: str, reward_scale: float) -> None:
        super().__init__()
        self.reward = MLP(in_features, hidden_sizes, 1, activation)
        self.end = MLP(in_features, hidden_sizes, 1, activation)
        self.likelihood = Gaussian(reward_scale)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.reward(features).squeeze(-1), self.end(features).squeeze(-1)

    def nats(self, features: Tensor, reward: Tensor, terminated: Tensor) -> tuple[Tensor, Tensor]:
        """(−log p(reward), −log p(end)) [...]; `terminated` is 0 or 1."""
        predicted, logit = self(features)
        return (
            -self.likelihood.log_prob(predicted[..., None], reward),
            -Bernoulli().log_prob(logit[..., None], terminated),
        )
