"""Sources of data whose best attainable loss is known, by name; baselines and bounds; digits and uniform images.

A source is a small frozen dataclass. `sample(n, generator)` returns a batch: `x`, and where they exist `label`, `action` and
`mask` (true where an entry is to be scored). Frames are uint8 [B, H, W, C], vectors float32 [B, D], sequences [B, T, …].
Everything random comes from the generator, on its device. Where theory gives them there are `log_prob(x)` [B] (float64,
nats) and `entropy`, the least mean −log p that a model can have: nats a datum (`step_entropy`, `pixel_entropy`: an entry).

Binary data and sequences are in `synthetic.py`, densities in `continuous.py`.
"""

from __future__ import annotations

import difflib
import importlib
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from generative import configured
from generative.model import Batch

SOURCES = {
    "digits": "generative.sources:Digits",
    "recording": "generative.recordings:Recording",
    "ising": "generative.synthetic:Ising",
    "parities": "generative.synthetic:Parities",
    "delayed_xor": "generative.synthetic:DelayedXor",
    "adding_problem": "generative.synthetic:AddingProblem",
    "colour_copies": "generative.synthetic:ColourCopies",
    "diagonal_copies": "generative.synthetic:DiagonalCopies",
    "coloured_shapes": "generative.coloured_shapes:ColouredShapes",
    "captioned_shapes": "generative.contrastive.captioned_shapes:CaptionedShapes",
    "uniform_images": "generative.sources:UniformImages",
    "gaussian_mixture": "generative.continuous:GaussianMixture",
    "ring": "generative.continuous:Ring",
    "banana": "generative.continuous:Banana",
    "correlated_gaussian": "generative.continuous:CorrelatedGaussian",
    "linear_dynamical_system": "generative.continuous:LinearDynamicalSystem",
}


class Source(Protocol):
    """What `fit` needs of a source; a user's own class needs no more."""

    def sample(self, n: int, generator: torch.Generator) -> Batch: ...


def source(name: str, /, **config: Any) -> Any:
    """The source of a registered name or of "package.module:Class". Raises ValueError for unknown names and settings.

    >>> round(source("parities", flip=0.1).entropy, 4)
    9.6181
    """
    path = SOURCES.get(name, name)
    if ":" not in path:
        match = difflib.get_close_matches(name, SOURCES, n=1, cutoff=0.5)
        hint = f"; did you mean {match[0]!r}?" if match else ""
        raise ValueError(
            f"unknown source {name!r}{hint} (known: {', '.join(sorted(SOURCES))}; or your own 'package.module:Class')"
        )
    module, _, class_name = path.partition(":")
    return configured(getattr(importlib.import_module(module), class_name), config, f"source {name!r}")


def binary_states(num_bits: int) -> Tensor:
    """All states of `num_bits` bits, uint8 [2^n, n]; state s has bit i of the number s in column i.

    >>> binary_states(2).tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    return (torch.arange(2**num_bits)[:, None] >> torch.arange(num_bits) & 1).to(torch.uint8)


def independent_nats(
    x: Tensor, weight: Tensor | None = None, *, test: Tensor | None = None, pseudo_count: float = 0.0
) -> float:
    """Mean −ln Π_i p(x_i) of the best factorised Bernoulli fitted to binary x [N, D]; nats.

    `weight` [N] are the probabilities of the rows (a whole table with its distribution), 1/N where there are none. The
    mean is over x, or over the rows of `test` [M, D]; `pseudo_count` is added to the count of each value of a bit.
    """
    x, weight, smoothing = weighted(x, weight, pseudo_count)
    probability = (weight @ torch.stack([1 - x, x]) + smoothing) / (1 + 2 * smoothing)  # [2, D]
    if test is not None:
        x, weight, _ = weighted(test, None, 0.0)
    return -torch.xlogy(weight @ torch.stack([1 - x, x]), probability).sum().item()


def chow_liu_nats(x: Tensor, weight: Tensor | None = None, *, test: Tensor | None = None, pseudo_count: float = 0.0) -> float:
    """Mean −ln Π_i p(x_i | x_parent(i)) of the best tree fitted to binary x [N, D]; nats.

    The maximum spanning tree by mutual information is the best of all trees (Chow & Liu 1968). Arguments as in
    `independent_nats`, with `pseudo_count` added to the count of each pair of values.
    """
    x, weight, smoothing = weighted(x, weight, pseudo_count)
    pair = (pair_table(x, weight) + smoothing) / (1 + 4 * smoothing)  # [2, 2, D, D]
    first, second = pair.sum(1), pair.sum(0)  # [2, D, D]: p(x_i) in every column j, p(x_j) in every row i
    ratio = pair / (first[:, None] * second[None]).clamp_min(torch.finfo(pair.dtype).tiny)
    information = torch.xlogy(pair, ratio.clamp_min(torch.finfo(pair.dtype).tiny)).sum((0, 1))  # [D, D]
    if test is not None:
        x, weight, _ = weighted(test, None, 0.0)
    seen = pair_table(x, weight)
    nats = -torch.xlogy(seen[:, :, 0, 0].sum(1), first[:, 0, 0]).sum()  # the root is bit 0
    for parent, child in maximum_spanning_tree(information):
        conditional = (pair[:, :, parent, child] / first[:, parent, child, None]).nan_to_num()  # 0/0: a value never seen
        nats -= torch.xlogy(seen[:, :, parent, child], conditional).sum()
    return nats.item()


def weighted(x: Tensor, weight: Tensor | None, pseudo_count: float) -> tuple[Tensor, Tensor, float]:
    """Float64 rows [N, D], their probabilities [N] (1/N where none are given), and the pseudo-count as a share of N."""
    if x.ndim != 2 or ((x != 0) & (x != 1)).any():
        raise ValueError(
            f"x should be [N, D] of zeros and ones, got shape {list(x.shape)}; flatten frames, binarise grey levels"
        )
    if weight is None:
        return x.double(), torch.full((len(x),), 1 / len(x), dtype=torch.float64, device=x.device), pseudo_count / len(x)
    if weight.shape != x.shape[:1] or abs(weight.double().sum().item() - 1) > 1e-6:
        raise ValueError(f"weight should be {len(x)} probabilities that sum to 1, got shape {list(weight.shape)}")
    return x.double(), weight.double(), pseudo_count / len(x)


def pair_table(x: Tensor, weight: Tensor) -> Tensor:
    """p(x_i = a, x_j = b) at [a, b, i, j] of binary rows x [N, D] with probabilities weight [N]."""
    values = torch.stack([1 - x, x])  # [2, N, D]; no entry is got by subtraction, so what never occurs is exactly 0
    return torch.einsum("ani,bnj->abij", weight[:, None] * values, values)


def maximum_spanning_tree(similarity: Tensor) -> list[tuple[int, int]]:
    """Edges (parent, child) of the heaviest tree over a symmetric [D, D], grown from node 0 (Prim's algorithm)."""
    best, parent = similarity[0].clone(), torch.zeros(len(similarity), dtype=torch.long)
    outside, edges = torch.ones(len(similarity), dtype=torch.bool, device=similarity.device), []
    outside[0] = False
    for _ in range(len(similarity) - 1):
        child = int(torch.where(outside, best, -torch.inf).argmax())
        edges.append((int(parent[child]), child))
        outside[child] = False
        closer = outside & (similarity[child] > best)
        best, parent = torch.where(closer, similarity[child], best), torch.where(closer.cpu(), child, parent)
    return edges


def distortion_at_rate(variances: tuple[float, ...], rate: float) -> float:
    """Least mean squared error of a Gaussian source coded at `rate` nats: D(R), by reverse water-filling.

    D = Σ min(θ, λ_i), with the water level θ at which R = Σ max(0, ½ ln(λ_i/θ)) (Cover & Thomas 2006, theorem 10.3.3). With
    the m largest variances above it, ln θ = (Σ_{i ≤ m} ln λ_i − 2R)/m; the first θ not below the next variance is right.

    >>> [round(distortion_at_rate((4, 2, 1, 0.5, 0.25, 0.125), rate), 5) for rate in (1, 2, 4)]
    [3.95604, 2.45658, 1.13448]
    """
    if rate < 0 or min(variances) <= 0:
        raise ValueError(f"the rate should be 0 or more and every variance above 0, got rate {rate}, variances {variances}")
    ordered = sorted(variances, reverse=True)
    for above in range(1, len(ordered) + 1):
        level = math.exp((sum(map(math.log, ordered[:above])) - 2 * rate) / above)
        if above == len(ordered) or level >= ordered[above]:
            break
    return sum(min(level, variance) for variance in ordered)


@lru_cache(maxsize=1)
def recorded_digits() -> tuple[np.ndarray, np.ndarray]:
    """All of scikit-learn's digits: grey levels 0…16 as uint8 [1797, 8, 8], and their classes [1797]."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    return digits.images.astype(np.uint8), digits.target.astype(np.int64)


@dataclass(frozen=True)
class Digits:
    """scikit-learn's 1,797 handwritten digits of 8 × 8 pixels (Alpaydin & Kaynak 1998), drawn with replacement.

    Every split is stratified by class, and `split` alone decides it. x is a vector [B, 64] in [0, 1], or with `frames` the
    levels themselves, uint8 [B, 8, 8, 1] of 0…levels − 1. `everything` is the part as one batch. No density is known;
    what `independent_nats` and `chow_liu_nats` reach on the test part is there to be beaten.
    """

    part: Literal["train", "test"] = "train"
    levels: Literal[2, 17] = 2  # 2: binarised at a grey level of 8 and above; 17: as recorded
    frames: bool = False
    test_share: float = 0.2  # of each class
    split: int = 0  # seed of the split

    def __post_init__(self) -> None:
        if self.part not in ("train", "test"):
            raise ValueError(f"part should be 'train' or 'test', got {self.part!r}")
        if self.levels not in (2, 17):
            raise ValueError(f"levels should be 2 or 17, got {self.levels}")

    @cached_property
    def everything(self) -> Batch:
        """All digits of this part: x, and label [N]."""
        from sklearn.model_selection import train_test_split  # type: ignore[import-untyped]

        images, classes = recorded_digits()
        rows = train_test_split(np.arange(len(classes)), test_size=self.test_share, stratify=classes, random_state=self.split)
        chosen = np.sort(rows[0] if self.part == "train" else rows[1])
        levels = (images[chosen] >= 8).astype(np.uint8) if self.levels == 2 else images[chosen]
        x = torch.from_numpy(levels)[..., None]  # [N, 8, 8, 1]
        x = x if self.frames else x.flatten(1).float() / (self.levels - 1)
        return {"x": x, "label": torch.from_numpy(classes[chosen])}

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        rows = torch.randint(len(self.everything["label"]), (n,), generator=generator, device=generator.device)
        return {key: value.to(generator.device)[rows] for key, value in self.everything.items()}


@dataclass(frozen=True)
class UniformImages:
    """Pixels independent and uniform over 0…255: frames uint8 [B, H, W, C]. 8 bits a dimension: nothing can be compressed."""

    height: int = 4
    width: int = 4
    channels: int = 1

    @property
    def entropy(self) -> float:
        return self.height * self.width * self.channels * math.log(256)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        shape = (n, self.height, self.width, self.channels)
        return {"x": torch.randint(256, shape, generator=generator, device=generator.device, dtype=torch.uint8)}

    def log_prob(self, x: Tensor) -> Tensor:
        return torch.full((len(x),), -self.entropy, dtype=torch.float64, device=x.device)
