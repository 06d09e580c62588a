"""Drawing an MDP from what was counted: posterior sampling (Osband, Russo & Van Roy 2013, arXiv:1306.0940).

    P(· | s, a) ~ Dirichlet(n_1, …, n_k, 1)

over the k outcomes of a pair that were seen, n_i times, and one that wasn't: it ends the episode and pays the best reward seen
(or 0, if that is more). The policy that is optimal for a drawn MDP tries what may still turn out to be the best, and the less
the more was counted. Deviation: no prior over outcomes that weren't seen but the hopeful one, so that the lists stay short.
"""

from __future__ import annotations

import numpy as np

from mpagents.tabular.counting import Counts, counted_model
from mpagents.tabular.mdp import FiniteMDP

SMALLEST = 1e-300  # weight, so that none is 0 by rounding


def drawn_model(counts: Counts, discount: float, rng: np.random.Generator) -> FiniteMDP:
    """An MDP that the counts make probable; pairs that were never tried are worth the best reward for ever (γ < 1)."""
    best = max(0.0, float(counts.best_reward[0]))
    drawn = drawn_counts(counts, best, rng)
    return counted_model(drawn, discount=discount, known_after=1, unknown_value=best / (1.0 - discount))


def drawn_counts(counts: Counts, best: float, rng: np.random.Generator) -> Counts:
    """The counts with a hopeful outcome, in drawn shares that add up to `visits` + 1."""
    more = np.zeros((*counts.visits.shape, 1))
    code, seen, paid = (np.concatenate([part, more.astype(part.dtype)], 2) for part in (counts.code, counts.seen, counts.paid))
    s, a = np.nonzero(counts.visits)
    k = counts.width[s, a]
    code[s, a, k], seen[s, a, k], paid[s, a, k] = s + len(code), 1, best
    weight = np.where(seen > 0, np.maximum(rng.standard_gamma(seen), SMALLEST), 0.0)
    visits = counts.visits + (counts.visits > 0)
    weight *= (visits / np.maximum(weight.sum(axis=2), SMALLEST))[:, :, None]
    width = counts.width + (counts.visits > 0).astype(np.int32)
    paid *= weight / np.maximum(seen, 1)
    return counts._replace(visits=visits, width=width, code=code, seen=weight, paid=paid)
