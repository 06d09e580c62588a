"""What the sequence models model: the form of their data, its heads, and losses over the entries that are scored.

Data are sequences x [B, T, D], or with `vectors` [B, T], which are read in their order as sequences of single values. All of
these models are p(x) = Π_t Π_d p(x_td | x_<t): the D values of a step are independent given the steps before (notes §6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from generative.likelihoods import Bernoulli, CategoricalHead, Gaussian, Likelihood, per_dimension, require
from generative.model import Metrics

HeadName: TypeAlias = Literal["bernoulli", "categorical", "gaussian", "mu_law"]


def mu_law_levels(x: Tensor, levels: int = 256) -> Tensor:
    """Audio x in [−1, 1] as levels 0 … K − 1: sign(x) ln(1 + μ|x|) / ln(1 + μ), μ = K − 1, rounded (G.711; notes §6.5).

    >>> mu_law_levels(torch.tensor([-1.0, 0.0, 0.1, 1.0])).tolist()
    [0, 128, 203, 255]
    """
    mu = levels - 1
    compressed = x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)  # [−1, 1]
    return (0.5 * (compressed + 1) * mu + 0.5).floor().long()


def mu_law_audio(level: Tensor, levels: int = 256, dtype: torch.dtype = torch.float32) -> Tensor:
    """The audio in [−1, 1] of levels: the inverse of `mu_law_levels`, up to its rounding."""
    mu = levels - 1
    compressed = 2 * level.to(dtype) / mu - 1
    return compressed.sign() * (torch.expm1(compressed.abs() * math.log1p(mu)) / mu).clamp(max=1)


@dataclass(frozen=True)
class SequenceData:
    """Sequences of one form: what is refused, what a network gets of them, and their likelihood.

    Heads: `bernoulli` (0 and 1), `categorical` (level numbers 0 … levels − 1), `gaussian` (any numbers), `mu_law` (audio in
    [−1, 1], as categorical levels: its log-probability is that of the level, not a density).
    """

    size: int  # D, values a step
    num_steps: int  # T of what is sampled, and of every vector
    head: HeadName
    levels: int  # of categorical and mu_law
    scale: float | None  # of the Gaussian, in units of x; None: learned
    vectors: bool  # data are [B, T]

    def check(self) -> None:
        """Raises ValueError for settings out of range; called by the configurations that hold them."""
        heads = get_args(HeadName)
        require(self.head in heads, "head", repr(self.head), " or ".join(heads))
        require(self.size >= 1, "size", self.size, "at least 1")
        require(self.num_steps >= 1, "num_steps", self.num_steps, "at least 1")
        require(self.levels >= 2, "levels", self.levels, "at least 2")
        require(not self.vectors or self.size == 1, "size", self.size, "1, as vectors are sequences of single values")

    @property
    def likelihood(self) -> Likelihood:
        if self.head == "bernoulli":
            return Bernoulli()
        return Gaussian(self.scale) if self.head == "gaussian" else CategoricalHead(self.levels)

    @property
    def out_features(self) -> int:
        """Outputs of a network a step."""
        return self.size * self.likelihood.out_features

    @property
    def in_features(self) -> int:
        """Inputs of a network a step."""
        return self.size * (self.levels if self.head in ("categorical", "mu_law") else 1)

    def checked(self, x: Tensor) -> Tensor:
        """x as a sequence [B, T, D]. Raises ValueError for another shape or values out of range."""
        expected = f"[B, {self.num_steps}]" if self.vectors else f"[B, T, {self.size}] with T ≥ 1"
        sound = x.ndim == 2 and x.shape[1] == self.num_steps if self.vectors else x.ndim == 3 and x.shape[2] == self.size
        if not sound or x.shape[1] < 1:
            raise ValueError(
                f"x is of shape {list(x.shape)}; expected {expected}: reshape it, or set size, num_steps or vectors"
            )
        if torch.compiler.is_compiling():  # a look at values would break the graph
            return x[..., None] if self.vectors else x
        low, high = self._range()
        if not ((x >= low) & (x <= high)).all() or (self.head in ("bernoulli", "categorical") and (x != x.round()).any()):
            span = f"{x.min().item():g} to {x.max().item():g}"
            raise ValueError(f"x has values from {span}; the {self.head} head expects {self._values()}: scale it, or set head")
        return x[..., None] if self.vectors else x

    def _range(self) -> tuple[float, float]:
        if self.head == "mu_law":
            return -1, 1
        if self.head == "gaussian":
            return -torch.finfo(torch.float64).max, torch.finfo(torch.float64).max
        return 0, (1 if self.head == "bernoulli" else self.levels - 1)

    def _values(self) -> str:
        return {
            "bernoulli": "0 and 1",
            "categorical": f"whole levels 0 … {self.levels - 1}",
            "gaussian": "finite numbers",
            "mu_law": "audio in [−1, 1]",
        }[self.head]

    def inputs(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """What a network gets of x [*S, D] -> [*S, F]: bits as ±1, levels one-hot, numbers as they are."""
        if self.head == "gaussian":
            return x.to(dtype)
        if self.head == "bernoulli":
            return 2 * x.to(dtype) - 1
        return F.one_hot(self._targets(x).long(), self.levels).to(dtype).flatten(-2)

    def _targets(self, x: Tensor) -> Tensor:
        return mu_law_levels(x, self.levels) if self.head == "mu_law" else x

    def parameters(self, output: Tensor) -> Tensor:
        """A network's output [*S, D·P] as the likelihood's parameters [*S, D, P]."""
        return per_dimension(output, self.likelihood.out_features, -1)

    def log_prob(self, parameters: Tensor, x: Tensor) -> Tensor:
        """log p(x | parameters [*S, D, P]) of each value, x [*S, D] -> [*S, D]; nats."""
        return self.likelihood.log_prob(parameters, self._targets(x))

    def draw(self, parameters: Tensor, generator: torch.Generator) -> Tensor:
        """x [*S, D] ~ p(x | parameters), as recorded."""
        x = self.likelihood.sample(parameters, generator)
        return mu_law_audio(x, self.levels, parameters.dtype) if self.head == "mu_law" else x.to(parameters.dtype)

    def recorded(self, x: Tensor) -> Tensor:
        """A sequence [B, T, D] in the form in which it is recorded."""
        return x[..., 0] if self.vectors else x


def scored_loss(log_prob: Tensor, mask: Tensor | None) -> tuple[Tensor, Metrics]:
    """(loss, metrics): −log p summed over the scored values of a datum and averaged over the batch; nats.

    log_prob [B, T, D] is of each value, mask [B, T] or [B, T, D] is true where it is scored; default: everywhere.
    """
    scored = torch.ones_like(log_prob) if mask is None else _mask_like(mask, log_prob)
    total = -torch.where(scored > 0, log_prob, 0).sum()
    return total / len(log_prob), {"nats_per_value": total.detach() / scored.sum().clamp(min=1)}


def _mask_like(mask: Tensor, log_prob: Tensor) -> Tensor:
    mask = mask[..., None] if mask.ndim == log_prob.ndim - 1 else mask
    if mask.shape[:2] != log_prob.shape[:2] or mask.shape[2] not in (1, log_prob.shape[2]):
        batch, steps, size = log_prob.shape
        raise ValueError(
            f"mask is of shape {list(mask.shape)}; expected [{batch}, {steps}] or [{batch}, {steps}, {size}], true where scored"
        )
    return mask.to(log_prob.dtype).expand_as(log_prob)


def label_sequence(label: Tensor, data: SequenceData) -> Tensor:
    """A label [B] or [B, D] as a sequence of one step [B, 1, D]. Raises ValueError for another shape or range."""
    label = label[:, None] if label.ndim == 1 else label
    if label.ndim != 2 or label.shape[1] != data.size:
        raise ValueError(f"label is of shape {list(label.shape)}; expected [B, {data.size}]: set label_size")
    return data.checked(label[:, None])


def episode_starts(first: Tensor | None, x: Tensor, num_positions: int) -> Tensor | None:
    """`first` [B, num_positions], true where an episode starts, with the sequence's own start; None: there only.

    Position t predicts x_t; a position after the last that `first` knows of starts no episode. Raises ValueError.
    """
    if first is None:
        return None
    if first.ndim != 2 or len(first) != len(x) or not num_positions - 1 <= first.shape[1] <= num_positions:
        raise ValueError(f"first is of shape {list(first.shape)}; expected [B, T] = [{len(x)}, {num_positions}], as x has it")
    starts = F.pad(first.bool(), (0, num_positions - first.shape[1]))
    starts[:, 0] = True
    return starts


def positions(starts: Tensor | None, num_positions: int, device: torch.device) -> Tensor:
    """Steps since the episode's start, int64 [B, num_positions]; [1, num_positions] where no episode starts within.

    >>> positions(torch.tensor([[True, False, True, False, False]]), 5, torch.device("cpu")).tolist()
    [[0, 1, 0, 1, 2]]
    """
    steps = torch.arange(num_positions, device=device)[None]
    return steps if starts is None else steps - torch.where(starts, steps, 0).cummax(1).values
