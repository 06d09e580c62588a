"""Environments under watch: whatever they do wrong is told with their name and the step.

`watched(env, name)` is the same vector environment: what `step` and `reset` raise, a reward that isn't finite, NaN in an
observation, and a state outside 0 … n−1 become a RuntimeError that says which environment it was, and at which step.

`time_limit(seconds, last_resort)` ends a call that doesn't return. A thread notices it and signals the main thread, where the
call then raises: sleeping, waiting and looping in Python all end so, and the trial fails alone. Compiled code that goes on
regardless is given `GRACE` seconds more; then `last_resort` is called with the message, and the process exits. (Compiled code
that never lets go of Python's lock stops the thread too: nothing within the process can end that.)
"""

from __future__ import annotations

import math
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

GRACE = 5.0  # seconds between the signal and the process's end
GIVEN_UP = 70  # the process's exit code then (EX_SOFTWARE)


class Watch:
    """The calls of one vector environment; `num_steps` counts environment steps, over all copies."""

    def __init__(self, env: VectorEnv, name: str) -> None:
        self.env, self.name, self.num_steps = env, name, 0
        self._step, self._reset = env.step, env.reset
        mode = env.metadata.get("autoreset_mode")
        self._next_step = getattr(mode, "value", mode) == "NextStep"
        self._resetting = 0  # copies that the next call only resets
        self._flaw = flaw_of(env.observation_space, env.single_observation_space)

    def reset(self, **keywords: Any) -> tuple[Any, dict[str, Any]]:
        self._resetting = 0
        observation, infos = self._call(self._reset, **keywords)
        self._check(observation)
        return observation, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        self.num_steps += self.env.num_envs - self._resetting
        result = self._call(self._step, actions)
        observation, reward, terminated, truncated, _ = result
        if self._next_step:
            self._resetting = int(np.count_nonzero(terminated | truncated))
        if not math.isfinite(np.add.reduce(reward)):  # the cheapest look at all of them
            self._refuse(f"gave the reward {_first_not_finite(reward)}; expected a finite number")
        self._check(observation)
        return result

    def _call(self, function: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        global _busy
        _busy = (self, time.monotonic())
        try:
            return function(*arguments, **keywords)
        except Exception as error:
            raise RuntimeError(f"{self} raised {type(error).__name__}: {error}, {self.where}") from error
        finally:
            _busy = None

    def _check(self, observation: Any) -> None:
        flaw = self._flaw(observation)
        if flaw is not None:
            self._refuse(f"gave an observation {flaw}")

    def _refuse(self, what: str) -> NoReturn:
        raise RuntimeError(f"{self} {what}, {self.where}")

    @property
    def where(self) -> str:
        return f"at step {self.num_steps:,}" if self.num_steps else "when it was reset"

    def __str__(self) -> str:
        return f"environment {self.name!r}"


def watched(env: VectorEnv, name: str) -> VectorEnv:
    """The same environment, its `step` and `reset` watched. Meanwhile and afterwards it is as it was in every other way."""
    watch = Watch(env, name)
    env.step, env.reset = watch.step, watch.reset  # type: ignore[method-assign]
    return env


def count_from(env: VectorEnv, step: int) -> None:
    """Let a watched environment's steps be counted on from those of earlier processes."""
    watch = getattr(env.unwrapped.step, "__self__", None)
    if isinstance(watch, Watch):
        watch.num_steps = step


def flaw_of(space: gym.Space, single: gym.Space) -> Callable[[Any], str | None]:
    """A function that says what is wrong with a batch of observations, made once since it is called at every step."""
    if isinstance(single, gym.spaces.Dict) and isinstance(space, gym.spaces.Dict):
        parts = {key: flaw_of(space[key], single[key]) for key in single}

        def of_parts(observation: Any) -> str | None:
            flaws = ((key, part(observation[key])) for key, part in parts.items())
            return next((f"whose {key!r} is {flaw.removeprefix('that is ')}" for key, flaw in flaws if flaw), None)

        return of_parts
    if isinstance(single, gym.spaces.Discrete):
        return partial(_flaw_of_states, space.shape, int(single.start), int(single.start + single.n - 1))
    if isinstance(single, gym.spaces.Box):
        return partial(_flaw_of_numbers, space.shape)
    return lambda observation: None


def _flaw_of_states(shape: tuple[int, ...] | None, low: int, high: int, batch: Any) -> str | None:
    if np.shape(batch) != shape:
        return _misshapen(batch, shape)
    inside = low <= batch[0] <= high if len(batch) == 1 else batch.min() >= low and batch.max() <= high
    return None if inside else f"that is {_outside(batch, low, high)}"


def _flaw_of_numbers(shape: tuple[int, ...] | None, batch: Any) -> str | None:
    if np.shape(batch) != shape:
        return _misshapen(batch, shape)
    if batch.dtype.kind != "f" or not math.isnan(np.add.reduce(batch, None)) or not np.isnan(batch).any():
        return None  # the sum alone may be inf − inf
    return f"that is NaN in {np.isnan(batch).sum()} of {batch.size} numbers; expected none"


def _misshapen(batch: Any, shape: tuple[int, ...] | None) -> str:
    return f"that is of shape {np.shape(batch)[1:]}; expected {(shape or ())[1:]}"


def _outside(batch: np.ndarray, low: int, high: int) -> str:
    return f"{batch[(batch < low) | (batch > high)][0]}; expected a state {low} … {high}"


def _first_not_finite(reward: Any) -> float:
    rewards = np.asarray(reward, np.float64).ravel()
    return float(next((value for value in rewards if not math.isfinite(value)), np.sum(rewards)))


@dataclass(frozen=True)
class _Limit:
    seconds: float
    last_resort: Callable[[str], None]


_busy: tuple[Watch, float] | None = None  # the call that the main thread is in, and since when
_limit: _Limit | None = None
_thread: threading.Thread | None = None


@contextmanager
def time_limit(seconds: float | None, last_resort: Callable[[str], None]) -> Iterator[None]:
    """Within it, a call of a watched environment that takes longer ends. None, or outside the main thread: never."""
    global _limit, _thread
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before, _limit = _limit, _Limit(seconds, last_resort)
    if _thread is None or not _thread.is_alive():
        _thread = threading.Thread(target=_watch, name="mpagents-watch", daemon=True)
        _thread.start()
    handler = signal.signal(signal.SIGALRM, _raise)
    try:
        yield
    finally:
        _limit = before
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGALRM, handler)


def overdue() -> float | None:
    """Seconds by which the call that the main thread is in exceeds the limit; None where it doesn't."""
    busy, limit = _busy, _limit
    if busy is None or limit is None:
        return None
    over = time.monotonic() - busy[1] - limit.seconds
    return over if over > 0 else None


def _raise(signum: int, frame: Any) -> None:
    if overdue() is not None and _limit is not None:
        raise TimeoutError(f"no answer within {_limit.seconds:g} s")


def _watch() -> None:
    while True:
        time.sleep(min(1.0, _limit.seconds / 4) if _limit else 1.0)
        over, busy, limit = overdue(), _busy, _limit
        if over is None or busy is None or limit is None:
            continue
        main = threading.main_thread()
        if over < GRACE:
            signal.pthread_kill(main.ident or 0, signal.SIGALRM)
            continue
        message = f"{busy[0]} gave no answer within {limit.seconds:g} s, {busy[0].where}, and could not be interrupted"
        print(message, *traceback.format_stack(sys._current_frames().get(main.ident or 0)), sep="\n", file=sys.stderr)
        limit.last_resort(message)
        os._exit(GIVEN_UP)
