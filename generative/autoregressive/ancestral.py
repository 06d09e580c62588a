"""What the dense autoregressive models share: values drawn one after another, some of them given, and what they refuse.

x ~ Π_i p(x_i | x_before i) by ancestral sampling: each value is drawn from its conditional once those before it are there.
With the first k values given this draws the rest from p(rest | given) exactly (inpainting; notes §6). All noise is drawn
beforehand, so that two ways of computing the conditionals give the same samples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from generative.likelihoods import Likelihood, require
from generative.model import Batch


def ancestral_sample(
    conditional: Callable[[Tensor, int], Tensor], head: Likelihood, x: Tensor, noise: Tensor, places: Iterable[int]
) -> Tensor:
    """x [n, D] with the values at `places` drawn in turn; `conditional(x, place)` is the head's parameters [n, P] there."""
    x = x.clone()
    for place in places:
        x[:, place] = head.from_noise(conditional(x, place), noise[:, place]).to(x.dtype)
    return x


def starting_point(
    n: int, given: Tensor | None, num_given: int, visits: Sequence[int], like: Tensor, levels: int | None
) -> Tensor:
    """x [n, D] to sample from, of the type and device of `like`: 0 but for the first `num_given` places of `visits`."""
    dimensions = len(visits)
    require(0 <= num_given <= dimensions, "num_given", num_given, f"0 to the {dimensions} dimensions")
    x = like.new_zeros(n, dimensions)
    if given is None:
        require(num_given == 0, "num_given", f"{num_given} without given", "given, x [n, D], to take these values from")
        return x
    if given.shape != x.shape:
        raise ValueError(f"given is {list(given.shape)}; expected [n, D] = {list(x.shape)}, of which num_given are kept")
    kept = list(visits[:num_given])
    check_x(given[:, kept], num_given, levels)
    x[:, kept] = given[:, kept].to(x)
    return x


def drop_inputs(x: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """x [B, D, …] with whole dimensions set to 0, the others scaled by 1/(1 − p) (Srivastava et al. 2014)."""
    kept = torch.rand(x.shape[:2], generator=generator, device=generator.device) >= probability
    return x * kept.to(x).view(*x.shape[:2], *[1] * (x.ndim - 2)) / (1 - probability)


def scored(log_prob: Tensor, batch: Batch) -> Tensor:
    """Σ of log_prob [B, D] over the entries that count -> [B]."""
    if "mask" not in batch:
        return log_prob.sum(1)
    if batch["mask"].shape != log_prob.shape:
        raise ValueError(f"mask is {list(batch['mask'].shape)}; expected one entry for each of x {list(log_prob.shape)}")
    return (log_prob * batch["mask"].to(log_prob)).sum(1)


def label_shift(num_classes: int | None, features: int) -> nn.Embedding | None:
    """A bias of each class [K, F], 0 at first; None for a model without classes."""
    if num_classes is None:
        return None
    shift = nn.Embedding(num_classes, features)
    nn.init.zeros_(shift.weight)
    return shift


def shifted(bias: Tensor, shift: nn.Embedding | None, label: Tensor | None) -> Tensor:
    """A bias [F], or the biases of the data's classes [B, F]."""
    return bias if shift is None or label is None else bias + shift(label)


def check_x(x: Tensor, dimensions: int, levels: int | None) -> None:
    """Refuses x that isn't [B, D] of the levels 0 … K − 1, or of finite numbers where `levels` is None."""
    if x.ndim != 2 or x.shape[1] != dimensions:
        raise ValueError(f"x is {list(x.shape)}; expected [B, D] = [B, {dimensions}]: flatten frames, or set dimensions")
    if torch.compiler.is_compiling():  # a look at values would break the graph
        return
    if levels is None and not torch.isfinite(x).all():
        raise ValueError("x has values that are not finite; expected real numbers: leave such data out")
    if levels is not None and ((x < 0) | (x > levels - 1) | (x != x.round())).any():
        kind = "zeros and ones" if levels == 2 else f"levels 0 to {levels - 1}"
        raise ValueError(f"x has values from {x.min():g} to {x.max():g}; expected {kind}: binarise, round or rescale the data")


def check_label(label: Tensor | None, num_classes: int | None, n: int) -> None:
    """Refuses a label that is missing, not asked for, or of another shape or range than int64 [B] of 0 … K − 1."""
    if num_classes is None:
        require(label is None, "cond", "given to a model without classes", "None: or set num_classes")
        return
    require(label is not None, "cond", "missing", f"the label, int64 [B] of 0 to {num_classes - 1} (num_classes is set)")
    assert label is not None
    if label.shape != (n,) or label.is_floating_point():
        raise ValueError(f"label is {label.dtype} {list(label.shape)}; expected int64 [B] = [{n}]")
    if not torch.compiler.is_compiling() and ((label < 0) | (label >= num_classes)).any():
        raise ValueError(f"label has values from {label.min()} to {label.max()}; expected 0 to {num_classes - 1}")


def check_config(dimensions: int, num_classes: int | None, input_dropout: float) -> None:
    require(dimensions >= 1, "dimensions", dimensions, "at least 1")
    require(num_classes is None or num_classes >= 1, "num_classes", num_classes, "at least 1, or None for no labels")
    require(0 <= input_dropout < 1, "input_dropout", input_dropout, "a probability in [0, 1)")
