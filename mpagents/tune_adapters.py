"""What Ray Tune runs, asks and tells, each a thin class of Tune's over ours: the house's own files go without Ray.

trainable    a worker process's configuration (mpagents.tune_trial)
searcher     asks the search for configurations (mpagents.tune_search)
scheduler    which configurations go on, having heard of those that ended before
recorder     writes what it hears into the ledger, and hears signals
"""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
from pathlib import Path
from typing import Any

from mpagents.interrupting import check_stopped
from mpagents.tune_order import Order
from mpagents.tune_search import Search
from mpagents.tune_searchers import Source
from mpagents.tune_trial import Configuration

MAX_RETRIES = 2  # of a configuration whose worker process died


def trainable() -> type:
    """The class that Tune runs in worker processes: a `Configuration` there."""
    import ray.tune

    path = [str(Path.cwd()), *(entry for entry in sys.path if entry)]

    class Trainable(ray.tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            from mpagents.shipping import use_path
            from mpagents.worker import limit_threads

            use_path(path)
            limit_threads()
            order = Order.from_json(config["order"])
            if not order.root.is_dir():  # the driver has made it: here it would be another folder, whose trials were lost
                raise FileNotFoundError(f"{order.root} isn't there on {socket.gethostname()}")
            self.configuration = Configuration(order, self.trial_name)

        def step(self) -> dict[str, Any]:
            return self.configuration.advance()

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            self.configuration.save(Path(checkpoint_dir))

        def load_checkpoint(self, checkpoint: Any) -> None:
            self.configuration.load(Path(checkpoint))

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.configuration.close()
            self.setup(new_config)
            return True

        def cleanup(self) -> None:
            self.configuration.close()

    return Trainable


def searcher(search: Search, proposing: Source) -> Any:
    """What Tune asks for configurations."""
    from ray.tune.search import Searcher

    class FromLedger(Searcher):
        def set_search_properties(self, *_: Any, **__: Any) -> bool:
            return True

        def suggest(self, trial_id: str) -> Any:
            order = search.next(trial_id, proposing)
            return Searcher.FINISHED if order is None else {"order": order.to_json()}

        def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
            proposing.report(search.by_trial[trial_id][0], result["mark"], result["value"])

        def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
            name, entry = search.by_trial[trial_id]
            ended = "failed" if error or entry.value is None else "finished"
            proposing.end(name, dataclasses.replace(entry, state=entry.state or ended))

        def save(self, checkpoint_path: str) -> None:
            Path(checkpoint_path).write_bytes(b"")

        def restore(self, checkpoint_path: str) -> None:
            raise NotImplementedError("a search is continued from its ledger")

    return FromLedger(metric="value", mode=search.tuning.direction)


def recorder(search: Search) -> Any:
    """What hears of results from Tune, and writes them into the ledger."""
    from ray.tune import Callback

    def end(trial: Any, state: str, error: str | None = None) -> None:
        entry = search.ledger.entries[str(trial)]
        if entry.state is None:
            search.end(entry, state, json.loads(trial.config["order"])["values"], error)

    died: list[Any] = []  # trials whose process is gone, and which say nothing of it

    class Recorder(Callback):
        def on_step_begin(self, iteration: int, trials: list[Any], **_: Any) -> None:
            check_stopped()

        def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **_: Any) -> None:
            search.report(str(trial), result)

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            whole = search.ledger.entries[str(trial)].mark >= search.pair.marks
            end(trial, "finished" if whole else "stopped")

        def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
            problem = Order.from_json(trial.config["order"]).problem(str(trial))
            if problem is None:
                died.append(trial)
            else:
                end(trial, "failed", problem)

        def on_step_end(self, iteration: int, trials: list[Any], **_: Any) -> None:
            if died:
                search.check_nodes()  # not in `on_trial_error`: Tune hides what is raised there in an error of its own
            while died:
                end(died.pop(), "failed", f"its process died {1 + MAX_RETRIES} times")

    return Recorder()


class Replayed:
    """A trial of an interrupted search, as schedulers look at one."""

    def __init__(self, id: str) -> None:
        self.trial_id = f"replayed-{id}"


def scheduler(search: Search) -> Any:
    """The scheduler, which has heard the results of configurations that have ended."""
    from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule

    settings, mode = search.tuning.scheduler, search.tuning.direction
    if settings.name == "none":
        return FIFOScheduler()
    grace = settings.evaluations("grace", search.every)
    if settings.name == "asha":
        stopping: Any = ASHAScheduler(
            time_attr="mark", metric="value", mode=mode, max_t=search.pair.marks, grace_period=grace,
            reduction_factor=settings.get("reduction_factor"),
        )  # fmt: skip
    else:
        stopping = MedianStoppingRule(
            time_attr="mark", metric="value", mode=mode, grace_period=grace, min_samples_required=settings.get("min_samples"),
            min_time_slice=float("inf"),  # never let a configuration wait for others
        )  # fmt: skip
    for entry in search.before:
        stub = Replayed(entry.id)
        stopping.on_trial_add(None, stub)
        for (_, mark), value in entry.reports.items():
            stopping.on_trial_result(None, stub, {"mark": mark, "value": value})
    return stopping
