"""Minibatches from recorded rows: single ones, stacks of them, or windows in time.

A row is one observation with what led to it: in row t, `x` is the observation, `action` the action that led to it, `reward`,
`terminated` and `truncated` what came with it, and `first` says that an episode begins there, so that no action led to it
(zeros, and reward 0). An episode's last observation is a row like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from generative.model import Batch


@dataclass(frozen=True)
class Reading:
    """How rows become data."""

    length: int | None = None  # rows of a sequence [B, T, …]; None: single observations [B, …]
    stack: int = 1  # observations side by side in the channels, the oldest first; before an episode's start its first one
    stride: int = 1  # rows between stacked ones
    crossing: bool = False  # sequences run on into the next episode, told by `first`; else the short ones are padded
    actions: str = "taken"  # action beside x_t: the one "taken" upon it, or the one that "led" to it
    target: str | None = None  # the column that the batch also has as `target`, e.g. state, for probes

    def __post_init__(self) -> None:
        for name in ("length", "stack", "stride"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; expected at least 1")
        if self.actions not in ("led", "taken"):
            raise ValueError(f"actions is {self.actions!r}; expected 'taken' or 'led'")
        if self.crossing and self.length is None:
            raise ValueError("crossing is of sequences: set length")


@dataclass(frozen=True)
class Windows:
    """Rows of one or several streams, and the places in them at which data start; drawn with replacement."""

    columns: Mapping[str, np.ndarray]  # x, first, and where they exist action, reward, …: [N, …] each, possibly memory-mapped
    begins: np.ndarray  # of each row: where its episode begins
    stops: np.ndarray  # of each row: the row after the last that a window from here may have
    groups: np.ndarray  # of each row: what is held out as a whole, its episode or stream
    starts: np.ndarray  # rows at which data start
    reading: Reading = field(default_factory=Reading)
    num_actions: int | None = None  # of a discrete action, stored as its number, −1 for none; the batch has it one-hot

    def __len__(self) -> int:
        return len(self.starts)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        places = torch.randint(len(self), (n,), generator=generator, device=generator.device)
        return self.at(places, generator.device)

    def at(self, places: torch.Tensor, device: torch.device | str = "cpu") -> Batch:
        """The data at `places` [B] among the starts: [B, …], or [B, T, …] with mask [B, T], true where there is a row."""
        start = self.starts[places.cpu().numpy()]
        if self.reading.length is None:
            batch = self._rows(start)
        else:
            rows = start[:, None] + np.arange(self.reading.length)  # [B, T]
            mask = rows < self.stops[start][:, None]
            batch = self._rows(np.where(mask, rows, start[:, None]))
            batch = {key: value * mask.reshape(*mask.shape, *[1] * (value.ndim - 2)) for key, value in batch.items()}
            batch["mask"] = mask
        if self.reading.target:
            batch["target"] = batch[self.reading.target]
        return {key: torch.from_numpy(np.ascontiguousarray(value)).to(device) for key, value in batch.items()}

    def split(self, share: float, seed: int) -> tuple[Windows, Windows]:
        """(the rest, about a `share` held out): whole episodes at random, else the end of the only one.

        Raises ValueError where there are no two data apart.
        """
        groups = self.groups[self.starts]
        kinds, sizes = np.unique(groups, return_counts=True)
        if len(kinds) > 1:
            order = np.random.default_rng(seed).permutation(len(kinds))
            enough = np.searchsorted(np.cumsum(sizes[order]), share * len(self)) + 1
            held_out = np.isin(groups, kinds[order[: min(enough, len(kinds) - 1)]])
            kept = ~held_out
        else:
            first_held_out = self.starts[min(int(len(self) * (1 - share)), len(self) - 1)]
            held_out = self.starts >= first_held_out
            kept = self.starts + (self.reading.length or 1) <= first_held_out
        if not kept.any():
            raise ValueError(f"{len(self)} data of one episode can't be split: record more, or set validation=0")
        return replace(self, starts=self.starts[kept]), replace(self, starts=self.starts[held_out])

    def _rows(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """What stands at `rows` [B] or [B, T]."""
        batch = {key: column[rows] for key, column in self.columns.items() if key not in ("x", "action")}
        batch["x"] = self._stacked(rows)
        if "action" in self.columns:
            batch["action"] = self._actions(rows)
        return batch

    def _stacked(self, rows: np.ndarray) -> np.ndarray:
        back = self.reading.stride * np.arange(self.reading.stack)[::-1]
        x = [self.columns["x"][np.maximum(rows - lag, self.begins[rows])] for lag in back]
        return x[0] if len(x) == 1 else np.concatenate(x, -1)

    def _actions(self, rows: np.ndarray) -> np.ndarray:
        action = self.columns["action"]
        if self.reading.actions == "taken":
            following = np.minimum(rows + 1, len(action) - 1)
            none = (following == rows) | (self.begins[following] != self.begins[rows])
            found = action[following].copy()
            found[none] = 0 if self.num_actions is None else -1
        else:
            found = action[rows]
        if self.num_actions is None:
            return found
        return (np.arange(self.num_actions) == found[..., None]).astype(np.float32)


def windows(
    columns: Mapping[str, np.ndarray], streams: np.ndarray, reading: Reading, num_actions: int | None = None
) -> Windows:
    """All data in rows [N, …]. `streams` [S, 2]: begin and end of each run of rows; rows outside them are not used.

    Raises ValueError where no sequence is long enough, or where the target's column isn't there.
    """
    if reading.target is not None and reading.target not in columns:
        raise ValueError(f"target is {reading.target!r}; expected one of {', '.join(columns)}")
    num_rows = len(columns["x"])
    episode, stream = np.zeros(num_rows, np.int64), np.zeros(num_rows, np.int64)  # the first row of each
    stops, used = np.zeros(num_rows, np.int64), np.zeros(num_rows, bool)
    first = np.asarray(columns["first"])
    for begin, end in streams:
        heads = np.flatnonzero(first[begin:end]) + begin
        heads = heads if len(heads) and heads[0] == begin else np.concatenate([[begin], heads])
        tails = np.append(heads[1:], end)
        episode[begin:end] = np.repeat(heads, tails - heads)
        stream[begin:end] = begin
        stops[begin:end] = end if reading.crossing else np.repeat(tails, tails - heads)
        used[begin:end] = True
    rows = np.arange(num_rows)
    if reading.length is not None:
        used &= rows + reading.length <= stops
        if not reading.crossing:
            short = stops[episode] - episode < reading.length
            used |= (rows == episode) & short & (stops > episode)
    starts = rows[used]
    if not len(starts):
        raise ValueError(f"no {reading.length} rows in a run: expected length at most {np.diff(streams).max(initial=0)}")
    return Windows(columns, episode, stops, stream if reading.crossing else episode, starts, reading, num_actions)
