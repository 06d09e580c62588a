"""What models of a target given x share: the target's likelihood under a head, and what is predicted (notes §1.2).

A categorical target is int64 [B] and stands in the batch as `label`. Other heads take bits or numbers [B] or [B, K], of which
[B] means K = 1, from `target`, or from `label` where there is none.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from generative.likelihoods import Bernoulli, CategoricalHead, Gaussian, Laplace, Likelihood, per_dimension, require
from generative.model import Batch, Metrics

Head = Literal["categorical", "bernoulli", "gaussian", "laplace"]
HEADS = ("categorical", "bernoulli", "gaussian", "laplace")


def check(head: str, out_features: int) -> None:
    require(head in HEADS, "head", repr(head), " or ".join(HEADS))
    least = 2 if head == "categorical" else 1
    require(out_features >= least, "out_features", out_features, f"at least {least} with a {head} head")


def likelihood(head: str, out_features: int, scale: float | None) -> Likelihood:
    if head == "categorical":
        return CategoricalHead(out_features)
    if head == "bernoulli":
        return Bernoulli()
    return Gaussian(scale) if head == "gaussian" else Laplace(scale)


def num_outputs(found: Likelihood, head: str, out_features: int) -> int:
    """Outputs that a network needs for such a target."""
    return out_features if head == "categorical" else out_features * found.out_features


def parameters(found: Likelihood, head: str, output: Tensor) -> Tensor:
    """A network's output [B, …] as the head's parameters [B, P], or [B, K, P]."""
    return output if head == "categorical" else per_dimension(output, found.out_features)


def log_prob(found: Likelihood, head: str, output: Tensor, target: Tensor) -> Tensor:
    """log p(target | x) [B] in nats from a network's output. Raises ValueError for a target out of shape or range."""
    made = parameters(found, head, output)
    if head == "categorical":
        return found.log_prob(made, labels(target, (len(output),), made.shape[-1]))
    target = target[:, None] if target.ndim == 1 else target
    if head == "bernoulli" and ((target != 0) & (target != 1)).any():
        raise ValueError("the target of a Bernoulli head should be 0 or 1; got other values (head='categorical' has classes)")
    return found.log_prob(made, target.to(made.dtype)).sum(1)


def prediction(found: Likelihood, head: str, output: Tensor) -> Tensor:
    """The most probable class [B], or the mean [B, K]."""
    return output.argmax(-1) if head == "categorical" else found.mean(parameters(found, head, output))


def labels(label: Tensor, shape: tuple[int, ...], num_classes: int) -> Tensor:
    """Classes of `shape`, checked: int64 of 0…num_classes − 1. Raises ValueError otherwise."""
    if tuple(label.shape) != shape or label.is_floating_point():
        raise ValueError(f"label is {label.dtype} {list(label.shape)}; expected whole numbers {list(shape)}, a class for each")
    if label.numel() and not torch.compiler.is_compiling() and not (int(label.min()) >= 0 and int(label.max()) < num_classes):
        raise ValueError(
            f"labels reach from {int(label.min())} to {int(label.max())}; expected 0 to {num_classes - 1}: raise num_classes"
        )
    return label.long()


def target_of(batch: Batch, head: str = "categorical") -> Tensor:
    """What stands beside x. Raises ValueError where there is nothing."""
    keys = ("label",) if head == "categorical" else ("target", "label")
    for key in keys:
        if key in batch:
            return batch[key]
    raise ValueError(f"the batch has {', '.join(batch)}; expected {' or '.join(map(repr, keys))} beside x")


def loss(log_likelihood: Tensor) -> tuple[Tensor, Metrics]:
    """Mean of −log p over the batch, in nats."""
    negative = -log_likelihood.mean()
    return negative, {"log_prob": -negative.detach()}
