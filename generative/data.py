"""Where `fit` gets its minibatches from: sources, arrays, and what a user has, behind one method `sample`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from generative.model import Batch
from generative.sources import Source


@dataclass(frozen=True)
class Rows:
    """Data at hand: arrays or tensors of one length, by the keys of a batch; drawn with replacement.

    Arrays may be memory-mapped: only the rows drawn are read.
    """

    columns: Mapping[str, Any]  # x, and where they exist label, cond, …: [N, …] each
    rows: np.ndarray | None = None  # the part that is used; default: all

    def __post_init__(self) -> None:
        if "x" not in self.columns:
            raise ValueError(f"data have {', '.join(self.columns) or 'nothing'}; expected 'x' among them")
        lengths = {key: len(value) for key, value in self.columns.items()}
        if len(set(lengths.values())) != 1 or not len(self):
            raise ValueError(f"data have {lengths} rows; expected the same number of each, at least 1")

    def __len__(self) -> int:
        return len(self.columns["x"]) if self.rows is None else len(self.rows)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        return self.at(torch.randint(len(self), (n,), generator=generator, device=generator.device), generator.device)

    def at(self, places: Tensor, device: torch.device) -> Batch:
        """The rows at `places`, within the part."""
        index = places.cpu().numpy() if self.rows is None else self.rows[places.cpu().numpy()]
        return {key: _tensor(value[index]).to(device) for key, value in self.columns.items()}

    def split(self, share: float, seed: int) -> tuple[Rows, Rows]:
        """(the rest, a random `share` held out), at least one row each."""
        if len(self) < 2:
            raise ValueError("one row can't be split: set validation=0")
        order = np.random.default_rng(seed).permutation(len(self))
        order = order if self.rows is None else self.rows[order]
        held_out = min(max(1, round(share * len(self))), len(self) - 1)
        return replace(self, rows=np.sort(order[held_out:])), replace(self, rows=np.sort(order[:held_out]))


def as_source(data: Any) -> Source:
    """Anything that `fit` takes as a source: x alone, columns by key, a folder of `mpagents record`, or a source as it is."""
    if callable(getattr(data, "sample", None)):
        everything = getattr(data, "everything", None)  # a finite source: its rows can be held out
        return data if everything is None else Rows(everything)
    if isinstance(data, Tensor | np.ndarray):
        return Rows({"x": data})
    if isinstance(data, Mapping):
        return Rows(data)
    if isinstance(data, str | os.PathLike):
        from generative.recordings import Recording

        return Recording(os.fspath(data))
    raise TypeError(
        f"data is a {type(data).__name__}; expected a source with `sample(n, generator)`, an array or tensor, "
        "columns by key {'x': …}, or a recording's folder"
    )


def _tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
