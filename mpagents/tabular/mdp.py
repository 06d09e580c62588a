"""`FiniteMDP`: ⟨S, A, P, r, γ⟩ as flat arrays (notes §10, Definition 5), from which planners plan and kernels simulate.

The transitions of the pair (s, a) are the entries `row_start[s·A + a] : row_start[s·A + a + 1]` of `next_state`, `probability`,
`reward` and `terminated` (compressed sparse rows over state–action pairs). A terminated transition pays its reward and
then nothing: its successor is never bootstrapped on. So Gymnasium's toy-text tables, which keep outgoing transitions from
terminal states, are read rightly: a terminal state's value is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from mpagents.tabular.transitions import ROW_SUM_TOLERANCE, check_entries, merge_duplicates, normalise_rows, reach


class NoTransitionTable(ValueError):
    """The environment doesn't tell its dynamics."""


@dataclass(frozen=True, eq=False)
class FiniteMDP:
    """A finite Markov decision process. Build one by `from_gymnasium`, `from_arrays` or `from_successors`.

    >>> mdp = FiniteMDP.from_arrays([[[0.0, 1.0]], [[0.0, 1.0]]], [[1.0], [2.0]], discount=0.5)
    >>> mdp.num_states, mdp.num_actions, mdp.expected_reward.tolist()
    (2, 1, [[1.0], [2.0]])
    """

    num_states: int
    num_actions: int
    row_start: np.ndarray  # int64 [S·A + 1]
    next_state: np.ndarray  # int32 [N]
    probability: np.ndarray  # float64 [N], every row sums to 1
    reward: np.ndarray  # float64 [N], of the transition
    terminated: np.ndarray  # bool [N]
    initial: np.ndarray  # float64 [S], distribution of the first state
    terminal: np.ndarray  # bool [S], states in which nothing more is earned
    discount: float  # γ in [0, 1]

    @classmethod
    def from_transitions(
        cls,
        num_states,
        num_actions,
        row_start,
        next_state,
        probability,
        reward,
        terminated,
        *,
        initial,
        discount,
        merge,
    ) -> FiniteMDP:
        """Validate flat arrays, find the terminal states and pin them. The other constructors end here."""
        _check_discount(discount)
        row_start = np.asarray(row_start, np.int64)
        next_state = np.array(next_state, np.int32)
        probability, reward = np.array(probability, np.float64), np.array(reward, np.float64)
        terminated = np.array(terminated, np.bool_)
        check_entries(num_states, num_actions, row_start, next_state, probability, reward)
        if merge:
            row_start = merge_duplicates(row_start, next_state, probability, reward, terminated)
            end = row_start[-1]
            if end < next_state.size:
                next_state, probability = next_state[:end].copy(), probability[:end].copy()
                reward, terminated = reward[:end].copy(), terminated[:end].copy()
        normalise_rows(num_actions, row_start, probability)
        initial = _checked_initial(num_states, initial)
        terminal = _terminal_states(num_states, num_actions, row_start, next_state, terminated, initial)
        rows = np.repeat(terminal, num_actions)
        entries = np.repeat(rows, np.diff(row_start))
        reward[entries], terminated[entries] = 0.0, True
        return cls(num_states, num_actions, row_start, next_state, probability, reward, terminated, initial, terminal, discount)

    @classmethod
    def from_gymnasium(cls, env: Any, discount: float = 0.99) -> FiniteMDP:
        """From an environment with `mdp`, or with `P[s][a] = [(p, s′, r, terminated), …]` and `initial_state_distrib`.

        Raises NoTransitionTable where the environment has neither, or its table doesn't tell all of its dynamics; ValueError
        naming the state and the action where the table is wrong.
        """
        base = env.unwrapped
        if isinstance(getattr(base, "mdp", None), cls):
            return base.mdp.with_discount(discount)
        table, initial = getattr(base, "P", None), getattr(base, "initial_state_distrib", None)
        if table is None or initial is None:
            raise NoTransitionTable(f"{base} has no transition table: expected `P` and `initial_state_distrib`, or `mdp`")
        if getattr(base, "fickle_passenger", False):
            raise NoTransitionTable(f"{base} changes destinations outside of its table `P` (fickle_passenger=True)")
        num_states, num_actions = len(table), len(table[0])
        rows = [table[s][a] for s in range(num_states) for a in range(num_actions)]
        row_start = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        probability, next_state, reward, terminated = zip(*(entry for row in rows for entry in row))
        return cls.from_transitions(
            num_states, num_actions, row_start, next_state, probability, reward, terminated,
            initial=initial, discount=discount, merge=True,
        )  # fmt: skip

    @classmethod
    def from_arrays(cls, transition, reward, *, discount: float, initial=None, terminal: Sequence[int] = ()) -> FiniteMDP:
        """From `transition` [S, A, S] (dense, or a list of A sparse [S, S] matrices) and `reward` [S, A] or [S, A, S].

        `terminal` names states that end an episode on entry; `initial` defaults to uniform over the others.
        """
        if len(transition) and sp.issparse(transition[0]):
            num_states, num_actions = transition[0].shape[0], len(transition)
            stacked = sp.vstack(transition, format="csr")
            order = (np.arange(num_actions)[None, :] * num_states + np.arange(num_states)[:, None]).ravel()
            matrix = stacked[order]  # rows (s, a) from rows (a, s)
        else:
            dense = np.asarray(transition, np.float64)
            if dense.ndim != 3 or dense.shape[0] != dense.shape[2]:
                raise ValueError(f"transition has shape {dense.shape}; expected [S, A, S]")
            num_states, num_actions = dense.shape[:2]
            matrix = sp.csr_array(dense.reshape(num_states * num_actions, num_states))
        matrix.sum_duplicates()
        matrix.eliminate_zeros()
        counts = np.diff(matrix.indptr)
        reward = np.asarray(reward, np.float64)
        if reward.shape == (num_states, num_actions):
            entry_reward = np.repeat(reward.ravel(), counts)
        elif reward.shape == (num_states, num_actions, num_states):
            rows = np.repeat(np.arange(num_states * num_actions), counts)
            entry_reward = reward.reshape(-1, num_states)[rows, matrix.indices]
        else:
            raise ValueError(f"reward has shape {reward.shape}; expected [S, A] = ({num_states}, {num_actions}) or [S, A, S]")
        ends = _mask(num_states, terminal)
        return cls.from_transitions(
            num_states, num_actions, matrix.indptr, matrix.indices, matrix.data, entry_reward, ends[matrix.indices],
            initial=_default_initial(ends) if initial is None else initial, discount=discount, merge=False,
        )  # fmt: skip

    @classmethod
    def from_successors(
        cls, next_state, probability, reward, *, discount: float, initial=None, terminal: Sequence[int] = ()
    ) -> FiniteMDP:
        """From K successors a pair: `next_state` and `probability` [S, A, K], `reward` [S, A] or [S, A, K]."""
        next_state = np.asarray(next_state)
        num_states, num_actions, width = next_state.shape
        reward = np.asarray(reward, np.float64)
        if reward.ndim == 2:
            reward = np.repeat(reward[:, :, None], width, axis=2)
        ends = _mask(num_states, terminal)
        return cls.from_transitions(
            num_states, num_actions, np.arange(num_states * num_actions + 1) * width, next_state.ravel(),
            np.asarray(probability).ravel(), reward.ravel(), ends.take(next_state.ravel(), mode="clip"),
            initial=_default_initial(ends) if initial is None else initial, discount=discount, merge=True,
        )  # fmt: skip

    def with_discount(self, discount: float) -> FiniteMDP:
        """The same process under another γ; arrays are shared."""
        _check_discount(discount)
        return replace(self, discount=float(discount))

    @cached_property
    def expected_reward(self) -> np.ndarray:
        """r(s, a) = Σ_s′ P(s′ | s, a) r(s, a, s′), float64 [S, A]."""
        weighted = self.probability * self.reward
        return np.add.reduceat(weighted, self.row_start[:-1]).reshape(self.num_states, self.num_actions)

    @cached_property
    def backup_state(self) -> np.ndarray:
        """`next_state`, but S after terminated transitions: indexes a value vector [S + 1] whose last entry is 0."""
        return np.where(self.terminated, np.int32(self.num_states), self.next_state).astype(np.int32, copy=False)

    @cached_property
    def cumulative(self) -> np.ndarray:
        """Cumulated probabilities within each row, float64 [N], for drawing successors; each row ends in exactly 1."""
        total = np.cumsum(self.probability)
        before = np.concatenate([[0.0], total])[self.row_start[:-1]]
        cumulative = total - np.repeat(before, np.diff(self.row_start))
        cumulative[self.row_start[1:] - 1] = 1.0
        return cumulative

    def transition_matrix(self) -> sp.csr_array:
        """P(s′ | s, a) over transitions that go on, sparse [S·A, S]: rows of pairs that may terminate sum to less than 1."""
        shape = (self.num_states * self.num_actions, self.num_states)
        entries = (np.where(self.terminated, 0.0, self.probability), self.next_state, self.row_start)
        return sp.csr_array(entries, shape=shape)

    def reachable(self) -> np.ndarray:
        """bool [S]: the states that some policy visits from the initial distribution before an episode ends."""
        return reach(self.row_start, self.next_state, self.terminated, self.num_actions, self.initial > 0)


def _check_discount(discount) -> None:
    if not 0.0 <= discount <= 1.0:
        raise ValueError(f"discount is {discount}; expected a number in [0, 1]")


def _checked_initial(num_states, initial) -> np.ndarray:
    initial = np.array(initial, np.float64)
    if initial.shape != (num_states,) or (initial < 0).any() or abs(initial.sum() - 1.0) > ROW_SUM_TOLERANCE:
        raise ValueError(
            f"initial distribution has shape {initial.shape} and sum {initial.sum():.10g}; expected ({num_states},) and 1"
        )
    return initial / initial.sum()


def _default_initial(ends) -> np.ndarray:
    return ~ends / (~ends).sum()


def _mask(num_states, states) -> np.ndarray:
    mask = np.zeros(num_states, np.bool_)
    mask[list(states)] = True
    return mask


def _terminal_states(num_states, num_actions, row_start, next_state, terminated, initial) -> np.ndarray:
    """States entered by a terminated transition that are never visited before an episode's end."""
    entered = np.zeros(num_states, np.bool_)
    entered[next_state[terminated]] = True
    return entered & ~reach(row_start, next_state, terminated, num_actions, initial > 0)
