"""Optimisers as pure functions of tensors, so that gradient, clipping and update compile into one graph.

They compute what torch.optim.Adam and torch.optim.RMSprop do (tested), with the learning rate as a tensor: a schedule changes
it without compiling anew. A state is a dict of tensors; `step` counts updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, list[Tensor]]

# Moments of units that are never active decay into denormal numbers, which take a hundred times longer; set to 0 below this.
NEGLIGIBLE = 1e-30


def clip_by_global_norm(gradients: Sequence[Tensor], maximum: float) -> tuple[list[Tensor], Tensor]:
    """(gradients scaled so that their joint 2-norm is at most `maximum`, the norm before)."""
    norm = torch.stack([(g * g).sum() for g in gradients]).sum().sqrt()
    scale = torch.clamp(maximum / (norm + 1e-6), max=1.0)
    return [g * scale for g in gradients], norm


def value_and_gradients(
    function: Callable[..., tuple[Tensor, Any]], parameters: dict[str, Tensor], *arguments: Any
) -> tuple[Tensor, Any, list[Tensor]]:
    """(value, what comes with it, gradients) of `function(parameters, *arguments) -> (value, anything)`.

    Within a compiled graph by torch.func; else by autograd on fresh leaves, which is the same at a third of the overhead.
    """
    if torch.compiler.is_compiling():
        by_name, (value, rest) = torch.func.grad_and_value(function, has_aux=True)(parameters, *arguments)
        return value, rest, [by_name[name] for name in parameters]
    with torch.enable_grad():
        leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
        value, rest = function(leaves, *arguments)
        gradients = torch.autograd.grad(value, list(leaves.values()), allow_unused=True, materialize_grads=True)
    return value.detach(), rest, list(gradients)


def load_state(state: State, saved: State) -> None:
    """Copy a saved state into `state`, in place."""
    for name, tensors in state.items():
        for mine, its in zip(tensors, saved[name]):
            mine.copy_(its)


def adam_state(parameters: Sequence[Tensor]) -> State:
    zeros = [torch.zeros_like(p) for p in parameters]
    device = parameters[0].device
    return {"mean": zeros, "square": [torch.zeros_like(p) for p in parameters], "step": [torch.zeros((), device=device)]}


def adam(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], state: State, learning_rate: Tensor, *,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
) -> None:  # fmt: skip
    """One Adam update in place (Kingma & Ba 2015, Alg. 1, arXiv:1412.6980)."""
    step = state["step"][0]
    step += 1
    first, second = (-torch.expm1(step * math.log(beta)) for beta in betas)  # 1 − βᵗ, without its rounding
    for p, g, mean, square in zip(parameters, gradients, state["mean"], state["square"]):
        mean.mul_(betas[0]).add_(g, alpha=1 - betas[0])
        square.mul_(betas[1]).addcmul_(g, g, value=1 - betas[1])
        mean.copy_(F.hardshrink(mean, NEGLIGIBLE))
        square.copy_(F.hardshrink(square, NEGLIGIBLE))
        p.sub_(learning_rate / first * mean / (torch.sqrt(square / second) + eps))


def rmsprop_state(parameters: Sequence[Tensor]) -> State:
    return {"square": [torch.zeros_like(p) for p in parameters]}


def rmsprop(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], state: State, learning_rate: Tensor, *,
    alpha: float = 0.99, eps: float = 1e-5,
) -> None:  # fmt: skip
    """One RMSprop update in place (Hinton 2012, lecture 6e), with α and ε of A2C."""
    for p, g, square in zip(parameters, gradients, state["square"]):
        square.mul_(alpha).addcmul_(g, g, value=1 - alpha)
        p.sub_(learning_rate * g / (torch.sqrt(square) + eps))
