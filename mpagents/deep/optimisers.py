"""Optimisers as pure functions of a vector of parameters, so that gradient, clipping and update compile into one graph.

They compute what torch.optim.Adam and torch.optim.RMSprop do (tested), with the learning rate as a tensor: a schedule changes
it without compiling anew. A state is a dict of tensors; `step` counts updates.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]

# Moments of units that are never active decay into denormal numbers, which take a hundred times longer; set to 0 below this.
NEGLIGIBLE = 1e-30


def clip_by_norm(gradient: Tensor, maximum: float) -> tuple[Tensor, Tensor]:
    """(gradient scaled so that its 2-norm is at most `maximum`, the norm before)."""
    norm = (gradient * gradient).sum().sqrt()
    return gradient * torch.clamp(maximum / (norm + 1e-6), max=1.0), norm


def value_and_gradient(
    function: Callable[..., tuple[Tensor, Any]], parameters: Tensor, *arguments: Any
) -> tuple[Tensor, Any, Tensor]:
    """(value, what comes with it, gradient) of `function(parameters, *arguments) -> (value, anything)`."""
    with torch.enable_grad():
        leaf = parameters.detach().requires_grad_()
        value, rest = function(leaf, *arguments)
        (gradient,) = torch.autograd.grad(value, [leaf])
    return value.detach(), rest, gradient


def load_state(state: State, saved: State) -> None:
    """Copy a saved state into `state`, in place."""
    for name, tensor in state.items():
        tensor.copy_(saved[name])


def adam_state(parameters: Tensor) -> State:
    zeros = torch.zeros_like(parameters)
    return {"mean": zeros, "square": zeros.clone(), "step": torch.zeros((), device=parameters.device)}


def adam(
    parameters: Tensor, gradient: Tensor, state: State, learning_rate: Tensor, *,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
) -> None:  # fmt: skip
    """One Adam update in place (Kingma & Ba 2015, Alg. 1, arXiv:1412.6980)."""
    mean, square, step = state["mean"], state["square"], state["step"]
    step += 1
    first, second = (-torch.expm1(step * math.log(beta)) for beta in betas)  # 1 − βᵗ, without its rounding
    mean.mul_(betas[0]).add_(gradient, alpha=1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    mean.copy_(F.hardshrink(mean, NEGLIGIBLE))
    square.copy_(F.hardshrink(square, NEGLIGIBLE))
    parameters.sub_(learning_rate / first * mean / (torch.sqrt(square / second) + eps))


def rmsprop_state(parameters: Tensor) -> State:
    return {"square": torch.zeros_like(parameters)}


def rmsprop(
    parameters: Tensor, gradient: Tensor, state: State, learning_rate: Tensor, *, alpha: float = 0.99, eps: float = 1e-5
) -> None:
    """One RMSprop update in place (Hinton 2012, lecture 6e), with α and ε of A2C."""
    square = state["square"]
    square.mul_(alpha).addcmul_(gradient, gradient, value=1 - alpha)
    parameters.sub_(learning_rate * gradient / (torch.sqrt(square) + eps))
