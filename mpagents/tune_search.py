"""One pair's search, as its driver sees it: which configuration is tried next, what is told of it, and how far it all is."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpagents.cluster import Nodes
from mpagents.configuration import InvalidInput
from mpagents.progress_bar import ProgressBar
from mpagents.seeding import generator
from mpagents.tune_ledger import Entry, Ledger
from mpagents.tune_order import Order, newest_generation
from mpagents.tune_searchers import Source
from mpagents.tune_space import perturbed_values, random_values
from mpagents.tune_specification import Pair
from mpagents.tune_study import TuneStudy

TRIES = 100  # of a population's draws that agents refuse


def left(study: TuneStudy, pair: Pair, ledger: Ledger) -> int:
    """Configurations that are still to be tried, or to be finished."""
    return len(ledger.unfinished()) + max(0, study.num_samples(pair) - len(ledger.entries))


class Search:
    """One pair's search, as its driver sees it: the ledger, and what is told of it."""

    def __init__(
        self, study: TuneStudy, pair: Pair, ledgers: dict[str, Ledger], folder: Path, bar: ProgressBar,
        nodes: Nodes | None = None,
    ) -> None:  # fmt: skip
        """`nodes`: those of a cluster."""
        self.study, self.tuning, self.pair, self.ledgers, self.bar, self.nodes = study, study.tuning, pair, ledgers, bar, nodes
        self.ledger, self.root = ledgers[pair.name], folder / "search"
        self.every = int(pair.study["evaluation"]["every"])  # environment steps
        self.before = self.ledger.ended()
        self.waiting = self.ledger.unfinished()  # of an interrupted search
        self.by_trial: dict[str, tuple[str, Entry]] = {}  # by Tune's id: what the source knows it by, and what is tried

    def __reduce__(self) -> tuple[type, tuple]:
        return dict, ()  # Tune pickles whatever refers to it, into a state that is never read

    def order(self, entry: Entry) -> Order:
        """What a worker is to do for a configuration. Raises InvalidInput where an agent refuses it."""
        population = self.tuning.scheduler.name == "pbt"
        specs = self.pair.trials(entry.values, self.tuning.search_seeds, every=self.every)
        order = Order(entry.id, specs, entry.values, self.tuning.metric, self.root, population)
        told = newest_generation(order, entry.id) if population else None
        if told is None:
            return order
        values, generation = self.ledger.checked(told["values"]), told["generation"]
        marks = [mark for of, mark in entry.reports if of == generation]
        specs = self.pair.trials(values, self.tuning.search_seeds, every=self.every)
        mark = max(marks, default=told["mark"])
        return dataclasses.replace(order, specs=specs, values=values, generation=generation, mark=mark)

    def next(self, trial: str, proposing: Source) -> Order | None:
        """The next configuration that is to be tried: unfinished ones first. None where there are no more."""
        while self.waiting or len(self.ledger.entries) < self.study.num_samples(self.pair):
            name = f"{trial}-{len(self.ledger.entries)}"  # sources name a proposal once
            entry = self.waiting.pop(0) if self.waiting else self.ledger.suggest(proposing.propose(name))
            self.by_trial[trial] = name, entry
            try:
                return self.order(entry)
            except InvalidInput as error:  # settings that don't go together
                self.end(entry, "failed", error=str(error))
                proposing.end(name, entry)
        return None

    def report(self, id: str, result: dict[str, Any]) -> None:
        self.ledger.report(id, result["mark"], result["value"], result["generation"])
        self.tell()

    def end(self, entry: Entry, state: str, values: dict[str, Any] | None = None, error: str | None = None) -> None:
        self.ledger.end(entry.id, state, values, error)
        if error:
            self.bar.say(f"failed: {self.pair.name} {entry.id}: {error}")
        self.tell()

    def check_nodes(self) -> None:
        """Raise ValueError where a node doesn't share the folder: one that has joined meanwhile, say."""
        if self.nodes is not None:
            self.nodes.look_now()
            self.nodes.check(self.root.parent)

    def tell(self) -> None:
        """Progress: configurations that were stopped count as whole."""
        done, ended, failed, best = 0, 0, 0, []
        for pair in self.study.pairs:
            entries = self.ledgers[pair.name].entries.values()
            done += sum(pair.marks if entry.state else entry.mark for entry in entries)
            ended += sum(entry.state is not None for entry in entries)
            failed += sum(entry.state == "failed" for entry in entries)
            best += [entry.value for entry in entries if entry.value is not None] if pair is self.pair else []
        total = sum(self.study.num_samples(pair) for pair in self.study.pairs)
        told = f"{ended}/{total} configurations" + (f" · {failed} failed" if failed else "")
        choose = max if self.tuning.direction == "max" else min
        self.bar.update(done, told + (f" · best {choose(best):.4g}" if best else ""))

    def acceptable(self, index: int) -> dict[str, Any]:
        """A member's first settings: the first draw that the agent takes."""
        for i in range(TRIES):
            values = random_values(self.pair.space, self.tuning.seed, index + i * 1_000_000)
            with contextlib.suppress(InvalidInput):
                self.pair.trials(values, self.tuning.search_seeds)
                return values
        raise ValueError(f"of {TRIES} configurations of {self.pair.name} none is valid; expected domains that go together")


def explorer(search: Search) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """The settings of a member that copies another one's: that one's, perturbed."""
    rng = generator(search.tuning.seed, "perturbation", sum(len(entry.reports) for entry in search.ledger.entries.values()))

    def explore(config: dict[str, Any]) -> dict[str, Any]:
        order = Order.from_json(config["order"])  # a copy of the other's; the worker goes by its own id
        for _ in range(TRIES):
            values = perturbed_values(search.pair.space, order.values, rng, search.tuning.scheduler.get("resample"))
            with contextlib.suppress(InvalidInput):
                specs = search.pair.trials(values, search.tuning.search_seeds, every=search.every)
                return {**config, "order": dataclasses.replace(order, specs=specs, values=values).to_json()}
        return config

    return explore
