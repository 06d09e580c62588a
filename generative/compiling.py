"""`compile: auto | true | false` of a training: its loss as torch.compile makes it, where that can be had."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.exc import BackendCompilerFailed
from torch._inductor.exc import InductorError


def compiled(loss: Callable) -> Callable:
    """`loss` as torch.compile makes it; eager, with one line of warning, where that fails (no C++ compiler, say)."""
    fast: Callable | None = torch.compile(loss, dynamic=False)

    def tried(*arguments: Any, **keywords: Any) -> Any:
        nonlocal fast
        if fast is not None:
            try:
                return fast(*arguments, **keywords)
            except (BackendCompilerFailed, InductorError) as error:
                warnings.warn(f"not compiled, so slower: {str(error).strip().splitlines()[0]}", stacklevel=2)
                fast = None
        return loss(*arguments, **keywords)

    return tried
