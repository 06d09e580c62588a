"""Hyperparameter search on Ray Tune: it searches and schedules; what is finished, and what it gave, our own ledger says.

    runs/<study>/tune.json                     what is searched
                 ledger/<env>~<agent>.jsonl    every configuration, its evaluations and its end (mpagents.tune_ledger)
                 search/                       their trials, in TensorBoard with hparams (mpagents.tune_trial)
                 final/                        the finalists and the default on seeds that the search never used: a study
                 best.yaml, tuned.json         the best of them, as a study file; the comparison

An interrupted search is built anew from the ledger: ended configurations are told to the searcher and the scheduler,
unfinished ones go on from their trials' checkpoints. Tune's own state (`ray/`) is pickled and never flushed to the disk: it is
never read, and taken away at the end.

    random, grid, TPE (Optuna)        ASHA: Li et al. 2020, arXiv:1810.05934
    median stopping: Golovin et al. 2017, "Google Vizier"        PBT: Jaderberg et al. 2017, arXiv:1711.09846
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpagents.cluster import Nodes
from mpagents.configuration import InvalidInput, Problem
from mpagents.interrupting import STOPPING, handling, interrupt, listening
from mpagents.progress_bar import ProgressBar
from mpagents.ray_session import ForPeople, exporting, ray_session
from mpagents.results import ledger as studies
from mpagents.results.results import Results
from mpagents.runner import run
from mpagents.tune_adapters import MAX_RETRIES, recorder, scheduler, searcher, trainable
from mpagents.tune_finals import Finals, conclude, finalists
from mpagents.tune_ledger import Entry, Ledger, continued, discard
from mpagents.tune_search import Search, explorer, left
from mpagents.tune_searchers import source
from mpagents.tune_specification import Pair
from mpagents.tune_study import TuneStudy

OF_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # trials log for themselves
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_MAX_PENDING_TRIALS_PG": "1",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # so that relative paths mean the same everywhere
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class Tuned:
    """What a search has found."""

    folder: Path
    pairs: list[dict[str, Any]]  # of each searched pair: default, best, label, values, study_file (`tuned.json`)
    results: Results  # of the finalists' study
    tried: dict[str, list[Entry]]  # by pair: every configuration


def tune(
    study: TuneStudy, *, out: str | Path = "runs", workers: int | None = None, address: str | None = None, fresh: bool = False,
    show: str = "auto",
) -> Tuned:  # fmt: skip
    """Run or continue a search in `out/<name>`, then evaluate its best configurations on the study's own seeds.

    `workers`, `address`, `fresh`, `show`: as of `mpagents.run`. Raises InvalidInput where the folder holds another search.
    """
    folder = Path(out).resolve() / study.study.name
    _check_workers(study, workers, address)
    with studies.locked(folder), ExitStack() as stack:
        if fresh:
            discard(folder)
        continued(folder, study.study.name, study.to_values())
        ledgers = {p.name: stack.enter_context(Ledger(folder / "ledger" / f"{p.name}.jsonl", p.space)) for p in study.pairs}
        todo = [pair for pair in study.pairs if left(study, pair, ledgers[pair.name])]
        if todo:
            stack.enter_context(_tune_session())
            slots = stack.enter_context(ray_session(workers, address, folder))
            _check_resources(study, slots)
            nodes = _nodes(study, folder, address)
            _search(study, todo, ledgers, folder, slots, show, nodes)
        chosen = finalists(study, ledgers)
        finals: Any = Finals(study, chosen)
        results = run(finals, out=folder, workers=workers, address=address, show=show)
        rows = conclude(study, chosen, results, folder)
        return Tuned(folder, rows, results, {name: list(ledger.entries.values()) for name, ledger in ledgers.items()})


def _check_workers(study: TuneStudy, workers: int | None, address: str | None) -> None:
    if workers == 0:
        raise ValueError("got --workers 0; a search needs Ray: expected at least 1, or leave it out")
    if address is None:
        _check_resources(study, workers or os.cpu_count() or 1, started=False)


def _check_resources(study: TuneStudy, slots: int, started: bool = True) -> None:
    """Tune would wait for ever for what isn't there."""
    asked = study.tuning.resources
    if asked.cpus > slots:
        problem = Problem(("tune", "resources", "cpus"), f"got {asked.cpus:g}; there are {slots}: ask for less, or --workers")
        raise InvalidInput([problem])
    if started and asked.gpus:
        import ray

        there = ray.cluster_resources().get("GPU", 0.0)
        if asked.gpus > there:
            raise InvalidInput([Problem(("tune", "resources", "gpus"), f"got {asked.gpus:g}; Ray finds {there:g}")])


def _nodes(study: TuneStudy, folder: Path, address: str | None) -> Nodes | None:
    """Those of a cluster, all of which write into the folder; None on one machine."""
    Nodes(study.study.resources)  # of the finals: refused now, not once all has been searched
    nodes = Nodes(study.tuning.resources, place=("tune", "resources"))
    (folder / "search").mkdir(exist_ok=True)  # a worker goes by it
    if address is None and len(nodes.alive) == 1:
        return None
    nodes.check(folder)
    return nodes


@contextmanager
def _tune_session() -> Iterator[None]:
    """What Tune reads of the environment, and signals heard, while a search runs."""
    logger = logging.getLogger("ray.tune")  # would print every failure's traceback; trials keep theirs
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        # What Ray prints is for people: standard output belongs to results.
        with exporting(OF_TUNE), contextlib.redirect_stdout(ForPeople()), listening(), handling(interrupt, STOPPING):
            yield
    finally:
        logger.setLevel(level)


def _search(
    study: TuneStudy, todo: list[Pair], ledgers: dict[str, Ledger], folder: Path, slots: int, show: str, nodes: Nodes | None
) -> None:  # fmt: skip
    """Search the pairs one after the other."""
    total = sum(study.num_samples(pair) * pair.marks for pair in study.pairs)
    done = sum(pair.marks * len(ledgers[pair.name].ended()) for pair in study.pairs)
    with ProgressBar(total, "evaluations", show, start=done) as bar:
        bar.say(f"{sum(study.num_samples(pair) for pair in study.pairs)} configurations → {folder}")
        for pair in todo:
            search = Search(study, pair, ledgers, folder, bar, nodes)
            storage = folder / "ray"
            (_fit_population if study.tuning.scheduler.name == "pbt" else _fit)(search, slots, storage)
            shutil.rmtree(storage, ignore_errors=True)


def _fit(search: Search, slots: int, storage: Path) -> None:
    """Any search but a population's."""
    import ray.tune

    def optuna_search(**settings: Any) -> Any:
        from ray.tune.search.optuna import OptunaSearch

        return OptunaSearch(**settings)

    tuning = search.tuning
    proposing = source(tuning, search.pair, search.ledger, optuna_search)
    concurrent = min(max(1, int(slots / tuning.resources.cpus)), tuning.max_concurrent or slots)
    config = ray.tune.TuneConfig(
        search_alg=searcher(search, proposing), scheduler=scheduler(search), max_concurrent_trials=concurrent,
        num_samples=max(1, left(search.study, search.pair, search.ledger)), reuse_actors=True,
        trial_name_creator=_id_of, trial_dirname_creator=_id_of,
    )  # fmt: skip
    _tuner(search, storage, config, {}).fit()


def _fit_population(search: Search, slots: int, storage: Path) -> None:
    """Population-based training: all members together, taking turns where there are more than workers."""
    import ray.tune
    from ray.tune.schedulers import PopulationBasedTraining

    tuning, settings = search.tuning, search.tuning.scheduler
    while len(search.ledger.entries) < search.study.num_samples(search.pair):
        search.waiting.append(search.ledger.suggest(search.acceptable(len(search.ledger.entries))))
    exploiting = PopulationBasedTraining(
        time_attr="mark", metric="value", mode=tuning.direction, quantile_fraction=settings.get("quantile"),
        perturbation_interval=settings.evaluations("every", search.every), custom_explore_fn=explorer(search), log_config=False,
    )  # fmt: skip
    orders = [search.order(entry).to_json() for entry in search.waiting]
    config = ray.tune.TuneConfig(
        scheduler=exploiting, num_samples=1, reuse_actors=True, trial_name_creator=_id_of, trial_dirname_creator=_id_of
    )
    _tuner(search, storage, config, {"order": ray.tune.grid_search(orders)}).fit()


def _id_of(trial: Any) -> str:
    return json.loads(trial.config["order"])["id"]


def _tuner(search: Search, storage: Path, config: Any, space: dict[str, Any]) -> Any:
    import ray.tune

    asked = search.tuning.resources
    workers = ray.tune.with_resources(trainable(), {"cpu": asked.cpus, "gpu": asked.gpus})
    population = search.tuning.scheduler.name == "pbt"
    run_config = ray.tune.RunConfig(
        name="search", storage_path=str(storage), verbose=0, callbacks=[recorder(search)],
        failure_config=ray.tune.FailureConfig(max_failures=MAX_RETRIES),
        checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=4 if population else 1),
    )  # fmt: skip
    return ray.tune.Tuner(workers, param_space=space, tune_config=config, run_config=run_config)
