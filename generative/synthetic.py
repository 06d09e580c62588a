"""Binary data and sequences whose entropy is known: what an autoregressive model can reach, and what stops it.

Every noise is a flip of a bit with a given probability, so that all entropies are sums of ln 2 and of the binary entropy
H₂(p) = −p ln p − (1−p) ln(1−p) (Cover & Thomas 2006, §2.1); the Ising model's is a sum over all of its states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from generative.model import Batch
from generative.sources import binary_states


def binary_entropy(p: float) -> float:
    """H₂(p) in nats; H₂(0) = H₂(1) = 0.

    >>> round(binary_entropy(0.1), 5)
    0.32508
    """
    return -sum(q * math.log(q) for q in (p, 1 - p) if q > 0)


def fair_bits(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Independent fair bits, uint8."""
    return torch.randint(2, shape, generator=generator, device=generator.device, dtype=torch.uint8)


def flips(shape: tuple[int, ...], p: float, generator: torch.Generator) -> Tensor:
    """Independent bits that are 1 with probability p, uint8."""
    return (torch.rand(shape, generator=generator, device=generator.device) < p).to(torch.uint8)


def flips_log_prob(flipped: Tensor, p: float) -> Tensor:
    """Σ ln of the probability of independent flips [B, …] -> float64 [B]."""
    flipped = flipped.flatten(1).double()
    probability = torch.tensor(p, dtype=torch.float64)
    return (torch.xlogy(flipped, probability) + torch.xlogy(1 - flipped, 1 - probability)).sum(1)


def require_probability(flip: float) -> None:
    if not 0 <= flip <= 1:
        raise ValueError(f"flip is a probability in [0, 1], got {flip}")


@dataclass(frozen=True)
class Ising:
    """Spins s ∈ {−1, 1} on a square lattice with a free boundary: p(s) ∝ exp(β Σ over neighbours of s_i s_j) (Ising 1925).

    The normaliser and the entropy come from listing all 2^(side²) states. x is (s + 1)/2: vectors [B, side²], row by
    row, or with `frames` uint8 [B, side, side, 1]. By symmetry every bit is fair, so the independent model needs
    side² ln 2 nats: all structure is in the couplings.
    """

    beta: float = 0.4  # inverse temperature times coupling
    side: int = 4
    frames: bool = False

    def __post_init__(self) -> None:
        if not 2 <= self.side <= 4:
            raise ValueError(f"side should be 2, 3 or 4 (all 2^(side²) states are listed), got {self.side}")

    @cached_property
    def table(self) -> Tensor:
        """ln p of every state, float64 [2^(side²)], in the order of `binary_states`."""
        spin = binary_states(self.side**2).double().view(-1, self.side, self.side) * 2 - 1
        bonds = (spin[:, 1:] * spin[:, :-1]).sum((1, 2)) + (spin[:, :, 1:] * spin[:, :, :-1]).sum((1, 2))
        return torch.log_softmax(self.beta * bonds, 0)

    @property
    def entropy(self) -> float:
        return -(self.table.exp() * self.table).sum().item()

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        state = torch.multinomial(self.table.exp().to(generator.device), n, replacement=True, generator=generator)
        x = state[:, None] >> torch.arange(self.side**2, device=state.device) & 1  # [B, side²]
        return {"x": x.to(torch.uint8).view(n, self.side, self.side, 1) if self.frames else x.float()}

    def log_prob(self, x: Tensor) -> Tensor:
        bits = x.flatten(1).long()
        return self.table.to(x.device)[(bits << torch.arange(bits.shape[1], device=x.device)).sum(1)]


@dataclass(frozen=True)
class Parities:
    """Fair bits, and the parity of each three of them (disjoint), flipped with probability `flip`: x [B, 4 triples].

    H = 3 triples ln 2 + triples H₂(flip). Any three of a triple and its parity are independent, so neither a tree nor
    a logistic conditional (FVSBN) sees anything: parity is not linearly separable (Minsky & Papert 1969).
    """

    triples: int = 4
    flip: float = 0.1

    def __post_init__(self) -> None:
        require_probability(self.flip)

    @property
    def entropy(self) -> float:
        return self.triples * (3 * math.log(2) + binary_entropy(self.flip))

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        bits = fair_bits((n, self.triples, 3), generator)
        parity = bits.sum(2, dtype=torch.uint8) % 2 ^ flips((n, self.triples), self.flip, generator)
        return {"x": torch.cat([bits.flatten(1), parity], 1).float()}

    def log_prob(self, x: Tensor) -> Tensor:
        bits, parity = x.to(torch.uint8).split([3 * self.triples, self.triples], 1)
        flipped = bits.unflatten(1, (self.triples, 3)).sum(2) % 2 ^ parity
        return flips_log_prob(flipped, self.flip) - bits.shape[1] * math.log(2)


@dataclass(frozen=True)
class DelayedXor:
    """x_t = x_{t−1} ⊕ x_{t−k} ⊕ (1 with probability `flip`), after k fair bits: x [B, T, 1], and mask [B, T] where t ≥ k.

    Such a step costs H₂(flip) = `step_entropy`; a model whose memory is shorter than k cannot do better than ln 2,
    for without x_{t−k} the bit x_t is fair given the rest.
    """

    delay: int = 8  # k, steps
    num_steps: int = 64
    flip: float = 0.1

    def __post_init__(self) -> None:
        require_probability(self.flip)
        if not 2 <= self.delay < self.num_steps:
            raise ValueError(f"delay should be from 2 to num_steps − 1 = {self.num_steps - 1}, got {self.delay}")

    @property
    def step_entropy(self) -> float:
        return binary_entropy(self.flip)

    @property
    def entropy(self) -> float:
        return self.delay * math.log(2) + (self.num_steps - self.delay) * self.step_entropy

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        noise = flips((n, self.num_steps), self.flip, generator)
        x = torch.cat([fair_bits((n, self.delay), generator), noise[:, self.delay :]], 1)
        for t in range(self.delay, self.num_steps):
            x[:, t] ^= x[:, t - 1] ^ x[:, t - self.delay]
        scored = torch.arange(self.num_steps, device=x.device) >= self.delay
        return {"x": x[..., None].float(), "mask": scored.repeat(n, 1)}

    def log_prob(self, x: Tensor) -> Tensor:
        bits, k = x.to(torch.uint8)[..., 0], self.delay
        return flips_log_prob(bits[:, k:] ^ bits[:, k - 1 : -1] ^ bits[:, :-k], self.flip) - k * math.log(2)


@dataclass(frozen=True)
class AddingProblem:
    """Two of T numbers are marked; the label is their sum (Hochreiter & Schmidhuber 1997, experiment 4, as in Le et al. 2015).

    x [B, T, 2] holds a number uniform in [0, 1] and a marker, one in each half of the sequence; label [B, 1]. Predicting the
    mean, 1, costs the variance of two uniforms, 1/6; the optimum is 0.
    """

    num_steps: int = 100
    mean_predictor_mse: ClassVar[float] = 1 / 6

    def __post_init__(self) -> None:
        if self.num_steps < 2:
            raise ValueError(f"num_steps should be 2 or more, got {self.num_steps}")

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        number = torch.rand(n, self.num_steps, generator=generator, device=generator.device)
        marker, half = torch.zeros_like(number), self.num_steps // 2
        for low, high in ((0, half), (half, self.num_steps)):
            marker.scatter_(1, torch.randint(low, high, (n, 1), generator=generator, device=generator.device), 1)
        return {"x": torch.stack([number, marker], 2), "label": (number * marker).sum(1, keepdim=True)}


@dataclass(frozen=True)
class ColourCopies:
    """R fair, G = R ⊕ noise, B = G ⊕ noise in every pixel: frames uint8 [B, H, W, 3] of values 0 and 1.

    A pixel costs ln 2 + 2 H₂(flip) nats: (1 + 2·0.469)/3 = 0.646 bits a dimension at flip 0.1, and 1 where the channels
    are modelled as independent.
    """

    height: int = 6
    width: int = 6
    flip: float = 0.1

    def __post_init__(self) -> None:
        require_probability(self.flip)

    @property
    def entropy(self) -> float:
        return self.height * self.width * (math.log(2) + 2 * binary_entropy(self.flip))

    @property
    def bits_per_dimension(self) -> float:
        return self.entropy / (self.height * self.width * 3 * math.log(2))

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        shape = (n, self.height, self.width)
        red = fair_bits(shape, generator)
        green = red ^ flips(shape, self.flip, generator)
        return {"x": torch.stack([red, green, green ^ flips(shape, self.flip, generator)], 3)}

    def log_prob(self, x: Tensor) -> Tensor:
        return flips_log_prob(x[..., 1:] ^ x[..., :-1], self.flip) - self.height * self.width * math.log(2)


@dataclass(frozen=True)
class DiagonalCopies:
    """x(i, j) = x(i−1, j+2) ⊕ noise, fair where that pixel doesn't exist: frames uint8 [B, H, W, 1]; mask [B, H, W] of copies.

    A copy costs H₂(flip) = `pixel_entropy`. Through 3 × 3 masks (i−1, j+2) lies in the blind spot of the plain PixelCNN at any
    depth, so its copies cost ln 2; the gated one's vertical stack sees it (van den Oord et al. 2016, arXiv:1606.05328, §2.2).
    """

    height: int = 8
    width: int = 8
    flip: float = 0.1

    def __post_init__(self) -> None:
        require_probability(self.flip)
        if self.width < 3 or self.height < 2:
            raise ValueError(f"a copy needs 2 rows and 3 columns or more, got {self.height} × {self.width}")

    @property
    def pixel_entropy(self) -> float:
        return binary_entropy(self.flip)

    @property
    def entropy(self) -> float:
        pixels, copies = self.height * self.width, (self.height - 1) * (self.width - 2)
        return copies * self.pixel_entropy + (pixels - copies) * math.log(2)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        x = fair_bits((n, self.height, self.width), generator)
        noise = flips((n, self.height, self.width), self.flip, generator)
        for row in range(1, self.height):
            x[:, row, :-2] = x[:, row - 1, 2:] ^ noise[:, row, :-2]
        mask = torch.zeros_like(x, dtype=torch.bool)
        mask[:, 1:, :-2] = True
        return {"x": x[..., None], "mask": mask}

    def log_prob(self, x: Tensor) -> Tensor:
        flipped = x[:, 1:, :-2] ^ x[:, :-1, 2:]
        return flips_log_prob(flipped, self.flip) - (x[0].numel() - flipped[0].numel()) * math.log(2)
