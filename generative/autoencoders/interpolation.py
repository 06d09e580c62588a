"""Walking between two data through the code; walks along one dimension of it are `generative.pictures.traversals`."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from generative.likelihoods import require


def interpolate(
    encode: Callable[[Tensor], Tensor], decode: Callable[[Tensor], Tensor], x0: Tensor, x1: Tensor, n: int
) -> Tensor:
    """Decoded codes (1 − t) f(x0) + t f(x1) for n even t from 0 to 1: data [B, n, …] from x0 and x1 [B, …].

    Raises ValueError for n below 2 and for x0 and x1 of different shapes.
    """
    require(n >= 2, "n", n, "at least 2: both ends are among the data")
    require(x0.shape == x1.shape, "the shape of x1", list(x1.shape), f"that of x0, {list(x0.shape)}")
    start, end = encode(x0)[:, None], encode(x1)[:, None]  # [B, 1, L]
    t = torch.linspace(0, 1, n, device=start.device, dtype=start.dtype)[:, None]  # [n, 1]
    return decode(torch.lerp(start, end, t).flatten(0, 1)).unflatten(0, (len(x0), n))
