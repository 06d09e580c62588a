"""Where the configurations of a search come from: drawn at random, a grid's, or asked of Optuna's TPE, after the study's own.

A source goes by the ledger: what has ended is told to it when it is made, so a continued search knows what the interrupted
one did. TPE: Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization" (NeurIPS 24), as Optuna has it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from mpagents.seeding import derive
from mpagents.tune_ledger import Entry, Ledger
from mpagents.tune_space import Domain, Values, grid_values, random_values
from mpagents.tune_specification import Pair, Tuning

OptunaSearch = Any  # `ray.tune.search.optuna.OptunaSearch`


class Source(Protocol):
    def propose(self, trial: str) -> Values: ...  # `trial`: a name for it
    def report(self, trial: str, mark: int, value: float) -> None: ...
    def end(self, trial: str, entry: Entry) -> None: ...


class Listed:
    """Configurations that depend on their number alone."""

    def __init__(self, ledger: Ledger, values_of: Callable[[int], Values]) -> None:
        self.ledger, self.values_of = ledger, values_of

    def propose(self, trial: str) -> Values:
        return self.values_of(len(self.ledger.entries))

    def report(self, trial: str, mark: int, value: float) -> None:
        pass

    def end(self, trial: str, entry: Entry) -> None:
        pass


class Optuna:
    """TPE through Ray Tune; choices go by their number. `first` is proposed before anything is asked of it."""

    def __init__(self, space: dict[str, Domain], ledger: Ledger, search: OptunaSearch, first: Values | None) -> None:
        self.space, self.ledger, self.search, self.first = space, ledger, search, first
        self.asked: set[str] = set()  # trials that it has proposed in this process
        for entry in ledger.ended():
            self._tell(entry)

    def propose(self, trial: str) -> Values:
        if self.first is not None and not self.ledger.entries:
            return self.first
        self.asked.add(trial)
        found = self.search.suggest(trial)
        return {key: self.space[key].values[v] if self.space[key].kind == "choice" else v for key, v in found.items()}

    def report(self, trial: str, mark: int, value: float) -> None:
        if trial in self.asked:
            self.search.on_trial_result(trial, {"value": value, "training_iteration": mark})

    def end(self, trial: str, entry: Entry) -> None:
        failed = entry.state == "failed" or entry.value is None
        if trial in self.asked:
            self.search.on_trial_complete(trial, None if failed else {"value": entry.value}, error=failed)
        else:
            self._tell(entry)

    def _tell(self, entry: Entry) -> None:
        """What another process tried."""
        domains = self.space.items()
        numbers = {key: d.values.index(entry.values[key]) if d.kind == "choice" else entry.values[key] for key, d in domains}
        failed = entry.state == "failed" or entry.value is None
        between = list(entry.reports.values())
        self.search.add_evaluated_point(numbers, entry.value, error=failed, intermediate_values=between)


def source(tuning: Tuning, pair: Pair, ledger: Ledger, optuna_search: Callable[..., OptunaSearch]) -> Source:
    """The source that the search asks for; `optuna_search` makes OptunaSearch."""
    if tuning.searcher == "grid":
        grid = grid_values(pair.space)
        return Listed(ledger, lambda i: grid[i])
    if tuning.searcher == "random":
        return Listed(ledger, lambda i: random_values(pair.space, tuning.seed, i))
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    seed = derive(tuning.seed, "optuna", pair.name, len(ledger.entries))  # a continued search doesn't draw the same again
    space = {key: _distribution(domain) for key, domain in pair.space.items()}
    search = optuna_search(space=space, metric="value", mode=tuning.direction, seed=seed)
    return Optuna(pair.space, ledger, search, pair.default())


def _distribution(domain: Domain) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if domain.kind == "choice":
        return CategoricalDistribution(list(range(len(domain.values))))
    low, high = domain.values
    if domain.kind == "int":
        return IntDistribution(low, high)
    return FloatDistribution(low, high, log=domain.kind == "loguniform")
