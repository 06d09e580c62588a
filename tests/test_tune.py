"""Hyperparameter search: what is refused, the ledger, exact copies, and searches on Ray that are interrupted and go on."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mpagents.configuration import InvalidInput
from mpagents.results.attempt import Superseded
from mpagents.results.checkpoint import load_checkpoint
from mpagents.seeding import generator
from mpagents.study_file import apply_overrides, parse_study
from mpagents.tune_finals import finalists
from mpagents.tune_ledger import Ledger, continued, discard
from mpagents.tune_order import Order, newest_generation
from mpagents.tune_search import Search
from mpagents.tune_space import Domain, grid_values, perturbed_values, random_values
from mpagents.tune_study import TuneStudy
from mpagents.tune_trial import Configuration

GOOD = """
name: lake
envs: [FrozenLake-v1]
agents: [{name: q_learning, label: q}, value_iteration]
seeds: 2
steps: 2_000
evaluation: {every: 500, episodes: 5}
tune:
  space:
    agents.q.alpha: {loguniform: [0.01, 0.9]}
    agents.q.epsilon: {choice: [0.1, 0.2, 0.4]}
  num_samples: 3
  seeds: 2
  finalists: 1
"""
SLOW = """
name: slow
envs: [FrozenLake-v1]
agents: [{name: q_learning, label: q, log_every: 500_000}]
seeds: 1
steps: 20_000_000
evaluation: {every: 2_000_000, episodes: 5}
tune:
  space: {agents.q.alpha: {loguniform: [0.01, 0.9]}}
  num_samples: 5
  finalists: 1
"""


def study(text: str = GOOD, *overrides: str) -> TuneStudy:
    return TuneStudy.from_values(apply_overrides(parse_study(text)[0], overrides))


def problems_of(*overrides: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        study(GOOD, *overrides)
    return [str(problem) for problem in caught.value.problems]


def test_tune_tells_every_problem_with_its_place():
    text = GOOD.replace("agents.q.alpha", "agents.q.alhpa").replace("choice", "choise").replace("num_samples", "num_sample")
    with pytest.raises(InvalidInput) as caught:
        study(text.replace("seeds: 2\nsteps", "seed: 2\nsteps"))
    told = [str(problem) for problem in caught.value.problems]
    assert len(told) == 4
    assert told[0].startswith("seed: unknown key; did you mean 'seeds'?")
    assert told[1].startswith("tune.num_sample: unknown key; did you mean 'num_samples'?")
    assert told[2].startswith("tune.space.agents.q.epsilon: unknown domain 'choise'; did you mean 'choice'?")
    assert told[3].startswith("tune.space.agents.q.alhpa: unknown key; did you mean 'alpha'?")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("tune=7", "tune: got 7; expected what is to be searched"),
        ("tune.space={}", "tune.space: empty"),
        ("tune.space={agents.p.alpha: {choice: [1]}}", "tune.space.agents.p.alpha: no 'p' in agents"),
        ("tune.space={agent.q.alpha: {choice: [1]}}", "tune.space.agent.q.alpha: begins with 'agent'"),
        ("tune.space={agents.q.alpha: {uniform: [0.5, 1.5]}}", "tune.space.agents.q.alpha: got 1.5; expected less than"),
        (
            "tune.space={agents.q.alpha: {uniform: [0.5, 0.1]}}",
            "tune.space.agents.q.alpha: uniform of [0.5, 0.1]; expected low",
        ),
        (
            "tune.space={agents.q.alpha: {loguniform: [0, 1]}}",
            "tune.space.agents.q.alpha: loguniform of [0, 1]; expected low > 0",
        ),
        ("tune.space={agents.q.log_every: {int: [1.5, 3]}}", "tune.space.agents.q.log_every: int of [1.5, 3]"),
        ("tune.space={agents.q.alpha: 0.5}", "tune.space.agents.q.alpha: got 0.5; expected one domain"),
        ("tune.space={agents.q.steps: {int: [1, 3]}}", "tune.space.agents.q.steps: 'steps' is the same for all"),
        ("tune.space={agents.q: {choice: [1]}}", "tune.space.agents.q: names no setting of 'q'"),
        ("tune.space={agents.q.epsilon.start: {uniform: [0.1, 1]}}", "tune.space.agents.q.epsilon.start: epsilon.end: missing"),
        ("tune.searcher=optunna", "tune.searcher: got 'optunna'; expected 'random', 'optuna' or 'grid'"),
        ("tune.searcher=grid", "tune.space.agents.q.alpha: a grid can't list a loguniform domain"),
        ("tune.searcher=grid", "tune.num_samples: a grid has its own number"),
        ("tune.scheduler=ahsa", "tune.scheduler: got 'ahsa'; expected 'asha'"),
        ("tune.scheduler={name: asha, quantile: 0.2}", "tune.scheduler.quantile: a setting of pbt"),
        ("tune.scheduler={name: asha, grace: 2_000}", "tune.scheduler.grace: got 2,000; expected less than the 2,000 steps"),
        ("tune.metric=reward", "tune.metric: got 'reward'; expected 'mean_reward'"),
        ("tune.mode=min", "tune.mode: got 'min'; expected 'max', which is better of mean_reward"),
        ("tune.metric=mean_ep_length", "tune.mode: missing; say whether max or min"),
        ("tune.seeds=[1, 7]", "tune.seeds: [1] are the study's seeds, which the search must not see"),
        ("tune.resources.cpu=1", "tune.resources.cpu: unknown key; did you mean 'cpus'?"),
        ("tune.max_concurrent=0", "tune.max_concurrent: got 0"),
        ("steps=0", "steps: got 0"),
    ],
)
def test_tune_refuses(override, expected):
    told = problems_of(override)
    assert any(problem.startswith(expected) for problem in told), told


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["tune.scheduler=asha", "evaluation.every=2_000"], "tune.scheduler: q on FrozenLake-v1 is evaluated once"),
        (
            ["tune.metric=regret", "envs.0=CartPole-v1", "agents=[{name: dqn, label: q}]"],
            "tune.metric: regret is known of finite",
        ),
        (["tune.scheduler=pbt", "tune.searcher=optuna"], "tune.searcher: got 'optuna'; pbt draws"),
        (["tune.scheduler=pbt", "tune.max_concurrent=1"], "tune.max_concurrent: a population's members take turns"),
        (
            ["tune.scheduler=pbt", "tune.space={agents.q.double: {choice: [true, false]}}"],
            "tune.space.agents.q.double: 'double' can't change while q learns; pbt takes",
        ),
        (
            ["tune.scheduler=pbt", "agents.0={name: random, label: q}", "tune.space={agents.1.epsilon: {uniform: [0.1, 1]}}"],
            "tune.space.agents.1.epsilon: 'epsilon' can't change while value_iteration learns; pbt can't tune it",
        ),
    ],
)
def test_tune_refuses_what_does_not_go_together(overrides, expected):
    told = problems_of(*overrides)
    assert any(problem.startswith(expected) for problem in told), told


def test_tune_cli_refuses_with_line_numbers_before_ray(cli, study_file, tmp_path):
    study_file(GOOD.replace("agents.q.alpha", "agents.q.alhpa"))
    done = cli("tune", "study.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("study.yaml:10: tune.space.agents.q.alhpa: unknown key; did you mean 'alpha'?")
    study_file(GOOD)
    too_many = cli("tune", "study.yaml", "--set", "tune.resources.cpus=64", "--workers", "2")
    assert too_many.returncode == 2
    assert "tune.resources.cpus: got 64; there are 2" in too_many.stderr
    assert not (tmp_path / "runs/lake/search").exists()


def test_tune_space_of_an_encoder_belongs_to_its_pair():
    text = GOOD.replace("agents: [{name: q_learning, label: q}, value_iteration]", "agents: [{name: dqn, label: q}]")
    text = text.replace("FrozenLake-v1", "CartPole-v1").replace(
        "steps: 2_000", "encoders: [null, {model: autoencoder, label: ae}]\nsteps: 2_000"
    )
    found = study(text, "tune.space={agents.q.n_step: {int: [1, 3]}, encoders.ae.latent: {choice: [2, 3]}}")
    plain, seen = found.pairs
    assert (plain.name, list(plain.space)) == ("CartPole-v1~q", ["agents.q.n_step"])
    assert (seen.name, list(seen.space)) == ("CartPole-v1~q+ae", ["agents.q.n_step", "encoders.ae.latent"])
    (trial,) = seen.trials({"agents.q.n_step": 2, "encoders.ae.latent": 3}, [5], label="q.c0001")
    assert trial.path == "CartPole-v1/q.c0001+ae/seed=5"
    assert trial.agent.config["n_step"] == 2
    assert trial.encoder.config["latent"] == 3


def test_domains_draw_within_their_ends_and_log_uniformly():
    rng = np.random.default_rng(0)
    log = np.array([Domain.parse({"loguniform": [1e-4, 1e-2]}).draw(rng) for _ in range(2_000)])
    assert log.min() >= 1e-4 and log.max() <= 1e-2
    assert np.median(log) == pytest.approx(1e-3, rel=0.15)  # the middle of the logarithm
    assert {Domain.parse({"int": [2, 4]}).draw(rng) for _ in range(100)} == {2, 3, 4}
    assert {str(Domain.parse({"choice": [[64], [32, 32]]}).draw(rng)) for _ in range(50)} == {"[64]", "[32, 32]"}


def test_domain_perturbed_steps_to_a_neighbour_or_by_a_factor():
    rng = np.random.default_rng(0)
    number, choice = Domain.parse({"uniform": [0.0, 1.0]}), Domain.parse({"choice": [1, 2, 3, 4]})
    assert {number.perturbed(0.4, rng, 0.0) for _ in range(50)} == {0.4 * 0.8, 0.4 * 1.25}
    assert {number.perturbed(0.9, rng, 0.0) for _ in range(50)} == {0.9 * 0.8, 1.0}
    assert {choice.perturbed(2, rng, 0.0) for _ in range(50)} == {1, 3}
    assert {choice.perturbed(1, rng, 0.0) for _ in range(50)} == {1, 2}
    assert {choice.perturbed(1, rng, 1.0) for _ in range(100)} == {1, 2, 3, 4}


def test_random_configurations_depend_on_the_seed_and_their_number_alone():
    space = study().pairs[0].space
    assert random_values(space, 0, 7) == random_values(space, 0, 7)
    assert random_values(space, 0, 7) != random_values(space, 0, 8)
    assert random_values(space, 0, 7) != random_values(space, 1, 7)


def test_grid_holds_every_combination_once():
    grid = grid_values({"a": Domain.parse({"choice": ["x", "y"]}), "b": Domain.parse({"int": [1, 3]})})
    assert [(row["a"], row["b"]) for row in grid] == [("x", 1), ("x", 2), ("x", 3), ("y", 1), ("y", 2), ("y", 3)]
    space = "tune.space={agents.q.epsilon: {choice: [0.1, 0.2]}, agents.q.log_every: {int: [500, 502]}}"
    listed = study(GOOD.replace("  num_samples: 3\n", ""), space, "tune.searcher=grid")
    assert listed.num_samples(listed.pairs[0]) == 6


def filled(path: Path) -> Ledger:
    ledger = Ledger(path)
    for i, (state, values) in enumerate(
        [("finished", [1.0, 4.0]), ("stopped", [9.0]), ("finished", [2.0, 5.0]), (None, [3.0])]
    ):
        entry = ledger.suggest({"agents.q.alpha": 0.1 * (i + 1), "agents.q.epsilon": 0.1})
        for mark, value in enumerate(values, start=1):
            assert ledger.report(entry.id, mark, value)
        if state:
            ledger.end(entry.id, state)
    return ledger


def test_ledger_reads_back_what_was_written_and_cuts_a_torn_line(tmp_path):
    path = tmp_path / "l/a.jsonl"
    with filled(path) as ledger:
        before = {id: dataclasses.asdict(entry) for id, entry in ledger.entries.items()}
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event": "ended", "id": "c0003", "sta')
    with Ledger(path) as again:
        assert {id: dataclasses.asdict(entry) for id, entry in again.entries.items()} == before
        assert not again.report("c0003", 1, 3.0)  # it tells an evaluation again
        assert [entry.id for entry in again.unfinished()] == ["c0003"]
        again.report("c0003", 2, 7.0)
    assert path.read_bytes().startswith(whole)
    with Ledger(path) as last:
        assert (last.entries["c0003"].mark, last.entries["c0003"].value) == (2, 7.0)


def test_ledger_with_a_damaged_line_is_refused_by_its_number(tmp_path):
    filled(tmp_path / "a.jsonl").__exit__()
    lines = (tmp_path / "a.jsonl").read_bytes().split(b"\n")
    lines[2] = lines[2][:20]
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    with pytest.raises(ValueError, match=r"a\.jsonl: line 3 is damaged .*--fresh"):
        Ledger(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({"event": "suggested", "id": "../../c0000", "values": {}}, "is no configuration's id"),
        (
            {"event": "suggested", "id": "c0000", "values": {"agents.q.alpha": 0.5, "agents.q.epsilon": 7}},
            "isn't within the space",
        ),
        ({"event": "suggested", "id": "c0000", "values": {"agents.0.name": "os:system"}}, "isn't within the space"),
        ({"event": "removed", "id": "c0000"}, "KeyError"),
    ],
)
def test_ledger_that_somebody_wrote_is_refused(tmp_path, line, why):
    (tmp_path / "a.jsonl").write_text(json.dumps(line) + "\n")
    with pytest.raises(ValueError, match=f"line 1 is damaged.*{why}"):
        Ledger(tmp_path / "a.jsonl", study().pairs[0].space)


def test_search_of_another_configuration_is_refused_with_the_difference(tmp_path):
    continued(tmp_path, "lake", study().to_values())
    continued(tmp_path, "lake", study(GOOD, "tune.num_samples=9", "seeds=5", "tune.finalists=2").to_values())
    with pytest.raises(InvalidInput, match=r"agents\.q\.alpha.*was \[0.01, 0.9\], is now \[0.02, 0.9\]"):
        continued(tmp_path, "lake", study(GOOD.replace("0.01", "0.02")).to_values())
    (tmp_path / "mine.txt").write_text("kept")
    discard(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_finalists_are_the_best_finished_ones_then_the_longest(tmp_path):
    found = study(GOOD, "tune.finalists=5", "agents.0.alpha=0.7")
    with filled(tmp_path / "a.jsonl") as ledger:
        chosen = finalists(found, {found.pairs[0].name: ledger})
        assert [finalist.label for finalist in chosen] == ["q.c0002", "q.c0000", "q.c0001"]
        same = study(GOOD, "tune.finalists=5", "agents.0.alpha=0.1")  # c0000's, and its epsilon is the default
        chosen = finalists(same, {same.pairs[0].name: ledger})
        assert [finalist.label for finalist in chosen] == ["q.c0002", "q.c0001", "q.c0000"]
        least = study(GOOD, "tune.finalists=1", "tune.metric=regret", "agents.0.alpha=0.7")
        assert [finalist.label for finalist in finalists(least, {least.pairs[0].name: ledger})] == ["q.c0000"]


def order_of(found: TuneStudy, root: Path, id: str, values: dict, population: bool = False) -> Order:
    pair = found.pairs[0]
    specs = pair.trials(values, found.tuning.search_seeds, every=int(pair.study["evaluation"]["every"]))
    return Order(id, specs, values, found.tuning.metric, root, population)


def evaluations(folder: Path) -> list[float]:
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [row["eval/mean_reward"] for row in rows if "eval/mean_reward" in row]


VALUES = {"agents.q.alpha": 0.5, "agents.q.epsilon": 0.4}


def test_configuration_reports_the_mean_over_its_seeds(tmp_path):
    configuration = Configuration(order_of(study(), tmp_path, "c0007", VALUES), "c0007")
    results = [configuration.advance() for _ in range(4)]
    folders = [tmp_path / f"FrozenLake-v1/q.c0007/seed={seed}" for seed in (10_000, 10_001)]
    assert [result["mark"] for result in results] == [1, 2, 3, 4]
    assert [result["done"] for result in results] == [False, False, False, True]
    assert [result["value"] for result in results] == [np.mean(pair) for pair in zip(*map(evaluations, folders))]
    assert all(json.loads((folder / "status.json").read_text())["status"] == "finished" for folder in folders)


def test_configuration_that_was_stopped_goes_on_elsewhere_as_if_it_never_was(tmp_path):
    order = order_of(study(), tmp_path / "cut", "c0001", VALUES)
    first = Configuration(order, "c0001")
    told = [first.advance()["value"] for _ in range(2)]
    first.close()  # what a scheduler does
    status = tmp_path / "cut/FrozenLake-v1/q.c0001/seed=10000/status.json"
    assert json.loads(status.read_text())["status"] == "stopped"
    older, again = (Configuration(Order.from_json(order.to_json()), "c0001") for _ in range(2))
    older.advance()
    assert [again.advance()["value"] for _ in range(2)] == told
    assert json.loads(status.read_text())["status"] == "stopped"  # told from the metrics, without training
    rest = [again.advance()["value"] for _ in range(2)]
    before = {path: path.read_bytes() for path in (tmp_path / "cut").rglob("*") if path.is_file()}
    with pytest.raises(Superseded):  # a process that was cut off between its two seeds, and wakes
        older.runs[1]._next()
    older._hung("no answer")
    older.close()
    assert {path: path.read_bytes() for path in (tmp_path / "cut").rglob("*") if path.is_file()} == before
    whole = Configuration(order_of(study(), tmp_path / "whole", "c0001", VALUES), "c0001")
    assert [whole.advance()["value"] for _ in range(4)] == told + rest
    finished = Configuration(order, "c0001").advance()
    assert (finished["mark"], finished["value"], finished["done"]) == (4, rest[-1], True)  # never run again


def test_configuration_whose_trial_fails_says_why(tmp_path, monkeypatch):
    (tmp_path / "breaking.py").write_text(
        "from mpagents.agents.q_learning import QLearning\n\n\nclass Agent(QLearning):\n"
        "    def train(self, env, num_steps):\n        raise RuntimeError('it broke')\n        yield\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = study(GOOD.replace("name: q_learning", "name: 'breaking:Agent'"))
    with pytest.raises(RuntimeError, match=r"q\.c0000/seed=10000: it broke"):
        Configuration(order_of(found, tmp_path, "c0000", VALUES), "c0000").advance()


def states(root: Path, label: str, step: int) -> list[dict]:
    return [load_checkpoint(path) for path in sorted(root.glob(f"FrozenLake-v1/{label}/seed=*/checkpoint/step={step}"))]


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return bool(np.all(a == b))


def test_population_member_copies_weights_and_takes_new_settings_exactly(tmp_path):
    found, other = study(), {**VALUES, "agents.q.alpha": 0.9}
    donor = Configuration(order_of(found, tmp_path, "c0000", VALUES, True), "c0000")
    for _ in range(2):
        donor.advance()
    donor.save(tmp_path / "copied")
    copier = Configuration(order_of(found, tmp_path, "c0001", other, True), "c0001")
    copier.advance()
    copier.load(tmp_path / "copied")
    before, after = states(tmp_path, "q.c0000.g0", 1_000), states(tmp_path, "q.c0001.g1", 1_000)
    assert len(before) == len(after) == 2
    assert all(same(a["agent"], b["agent"]) and same(a["env"], b["env"]) for a, b in zip(before, after))
    assert newest_generation(copier.order, "c0001") == {
        "generation": 1, "values": other, "mark": 2, "of": {"id": "c0000", "mark": 2, "generation": 0},
    }  # fmt: skip
    results = [copier.advance() for _ in range(2)]
    assert [(result["mark"], result["generation"]) for result in results] == [(3, 1), (4, 1)]
    trial = json.loads((tmp_path / "FrozenLake-v1/q.c0001.g1/seed=10000/trial.json").read_text())
    assert trial["agent"]["config"]["alpha"] == 0.9
    assert (tmp_path / "FrozenLake-v1/q.c0001.g0/seed=10000/metrics.jsonl").exists()  # its own past stays
    copier.generation = 1  # as of a process that was cut off before it copied, and wakes
    copier._open_generation(tmp_path / "copied", {"id": "c0000", "mark": 2, "generation": 0})
    assert copier.generation == 2
    assert json.loads((tmp_path / "FrozenLake-v1/q.c0001.g1/seed=10000/status.json").read_text())["status"] == "finished"


DQN = GOOD.replace("FrozenLake-v1", "CartPole-v1").replace(
    "name: q_learning", "name: dqn, learning_starts: 200, log_every: 100"
)


@pytest.mark.parametrize(
    "text", [GOOD, pytest.param(DQN.replace(", value_iteration", ""), marks=pytest.mark.slow)], ids=["q", "dqn"]
)
def test_population_member_with_the_same_settings_goes_on_as_the_one_it_copied(tmp_path, text):
    found = study(text.replace("agents.q.alpha", "agents.q.learning_rate")) if "dqn" in text else study(text)
    values = dict(zip(found.pairs[0].space, (0.05, 0.4)))
    donor = Configuration(order_of(found, tmp_path, "c0000", values, True), "c0000")
    for _ in range(2):
        donor.advance()
    donor.save(tmp_path / "copied")
    copier = Configuration(order_of(found, tmp_path, "c0001", values, True), "c0001")
    copier.load(tmp_path / "copied")
    assert [copier.advance()["value"] for _ in range(2)] == [donor.advance()["value"] for _ in range(2)]
    again = Configuration(order_of(found, tmp_path, "c0001", values, True), "c0001")
    again.load(tmp_path / "copied")  # as a process does whose predecessor died after copying
    assert again.generation == copier.generation == 0


class Quiet:
    def update(self, done: int, told: str = "") -> None:
        self.done = done

    def say(self, text: str) -> None:
        self.said = text


def search_of(found: TuneStudy, folder: Path, ledger: Ledger) -> Search:
    return Search(found, found.pairs[0], {found.pairs[0].name: ledger}, folder, Quiet())  # type: ignore[arg-type]


def test_search_hands_out_unfinished_ones_first_and_records_what_agents_refuse(tmp_path):
    from mpagents.tune_searchers import Listed

    text = GOOD.replace("name: q_learning, label: q", "name: sarsa, label: q").replace(
        "agents.q.epsilon", "agents.q.trace_decay"
    )
    found = study(
        text, "agents.0.n=2", "tune.space={agents.q.trace_decay: {choice: [0.0]}, agents.q.alpha: {uniform: [0.1, 0.2]}}"
    )
    given = [{"agents.q.trace_decay": decay, "agents.q.alpha": 0.1} for decay in (0.0, 0.5, 0.0)]
    with Ledger(tmp_path / "a.jsonl") as ledger:
        ledger.suggest(given[0])
        search = search_of(found, tmp_path, ledger)
        proposing = Listed(ledger, lambda i: given[i])
        assert search.next("t0", proposing).id == "c0000"
        assert search.next("t1", proposing).id == "c0002"  # n and traces together are refused
        assert ledger.entries["c0001"].state == "failed"
        assert "expected one of the two" in str(ledger.entries["c0001"].error)
        assert search.next("t2", proposing) is None


def test_scheduler_of_a_continued_search_knows_the_earlier_results(tmp_path):
    from ray.tune.schedulers import TrialScheduler

    from mpagents.tune_adapters import Replayed, scheduler

    for name in ("asha", "median"):
        found = study(GOOD, f"tune.scheduler={name}")
        with Ledger(tmp_path / f"{name}.jsonl") as ledger:
            decisions = []
            for _ in range(2):
                stopping, new = scheduler(search_of(found, tmp_path, ledger)), Replayed("new")
                stopping.on_trial_add(None, new)
                decisions.append(stopping.on_trial_result(None, new, {"mark": 1, "value": 0.0}))
                for value in (1.0, 2.0, 3.0, 4.0) if not ledger.entries else ():
                    entry = ledger.suggest({})
                    for mark in (1, 2, 3, 4):
                        ledger.report(entry.id, mark, value)
                    ledger.end(entry.id, "finished")
            assert decisions == [TrialScheduler.CONTINUE, TrialScheduler.STOP]


def optuna_source(found: TuneStudy, ledger: Ledger):
    from ray.tune.search.optuna import OptunaSearch

    from mpagents.tune_searchers import source

    return source(found.tuning, found.pairs[0], ledger, OptunaSearch)


def test_optuna_is_rebuilt_from_the_ledger_and_goes_where_it_was_good(tmp_path):
    pytest.importorskip("optuna")
    space = "tune.space={agents.q.alpha: {uniform: [0.0, 1.0]}, agents.q.epsilon: {choice: [0.1, 0.2]}}"
    found = study(GOOD, space, "tune.searcher=optuna")
    with Ledger(tmp_path / "a.jsonl") as ledger:
        first, rng = optuna_source(found, ledger), generator(0, "test")
        for i in range(30):
            values = {"agents.q.alpha": float(rng.random()), "agents.q.epsilon": (0.1, 0.2)[i % 2]}
            entry = ledger.suggest(values)
            ledger.report(entry.id, 1, -abs(values["agents.q.alpha"] - 0.8) - values["agents.q.epsilon"])
            ledger.end(entry.id, "finished")
            first.end(f"unknown {i}", entry)
    with Ledger(tmp_path / "a.jsonl") as ledger:
        again = optuna_source(found, ledger)
        one, two = (list(s.search._ot_study.trials) for s in (first, again))
        assert [(t.params, t.value, t.state) for t in one] == [(t.params, t.value, t.state) for t in two]
        proposed = [again.propose(f"new {i}") for i in range(10)]
        assert np.mean([abs(values["agents.q.alpha"] - 0.8) for values in proposed]) < 0.2  # at random 0.34
        assert sum(values["agents.q.epsilon"] == 0.1 for values in proposed) >= 7


def test_optuna_begins_with_the_studys_own_settings_where_the_space_holds_them(tmp_path):
    pytest.importorskip("optuna")
    for low, held in ((0.0, True), (0.5, False)):
        space = f"tune.space={{agents.q.alpha: {{uniform: [{low}, 1.0]}}, agents.q.epsilon: {{choice: [0.1, 0.3]}}}}"
        found = study(GOOD, "agents.0.alpha=0.25", "agents.0.epsilon=0.3", space, "tune.searcher=optuna")
        own = {"agents.q.alpha": 0.25, "agents.q.epsilon": 0.3}
        assert found.pairs[0].default() == (own if held else None)
        with Ledger(tmp_path / f"{low}.jsonl") as ledger:
            asked = optuna_source(found, ledger)
            assert (asked.propose("first") == own) is held
            entry = ledger.suggest(own)
            ledger.report(entry.id, 1, 0.5)
            ledger.end(entry.id, "finished")
            asked.end("first", entry)
            assert asked.propose("second") != own


def tuned(folder: Path) -> dict:
    """Every trial of the search and of the finals: its final figures and its evaluations."""
    found = {}
    for status in sorted(folder.glob("*/*/*/seed=*/status.json")):
        path = status.parent
        found[str(path.relative_to(folder))] = (json.loads(status.read_text()).get("final"), evaluations(path))
    return found


def test_tune_searches_reports_held_out_seeds_and_writes_the_best_as_a_study(cli, study_file, tmp_path):
    study_file(GOOD)
    done = cli("tune", "study.yaml", "--workers", "1", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    told, folder = json.loads(done.stdout), tmp_path / "runs/lake"
    (pair,) = told["pairs"]
    assert told["tried"] == {"FrozenLake-v1~q": {"finished": 3, "stopped": 0, "failed": 0}}
    searched = {path.name for path in folder.glob("search/*/*/seed=*")}
    reported = {path.name for path in folder.glob("final/*/*/seed=*")}
    assert (searched, reported) == ({"seed=10000", "seed=10001"}, {"seed=0", "seed=1"})
    assert {row["agent"] for row in told["summary"]} == {"q", "value_iteration", pair["label"]}
    with Ledger(folder / "ledger/FrozenLake-v1~q.jsonl") as ledger:
        best = max(ledger.entries.values(), key=lambda entry: entry.value)
        assert (pair["label"], pair["values"]) == (f"q.{best.id}", best.values)
    assert all(b"_hparams_/session_start_info" in events.read_bytes() for events in folder.glob("search/*/*/*/events*"))
    assert not (folder / "ray").exists()
    rerun = cli("run", folder / "best.yaml", "--workers", "0")
    assert rerun.returncode == 0, rerun.stderr
    for seed in (0, 1):
        of_final = folder / f"final/FrozenLake-v1/{pair['label']}/seed={seed}"
        assert evaluations(tmp_path / f"runs/lake-best/FrozenLake-v1/q/seed={seed}") == evaluations(of_final)
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("status.json")}
    assert cli("tune", "study.yaml", "--workers", "1").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("status.json")} == before


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "mpagents", "tune", *arguments], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def wait_until(condition, seconds: float, what: str):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s for {what}")


def of_ray(folder: Path) -> list[int]:
    """Ray's processes that stand in a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdecimal() and (entry / "cwd").resolve() == folder and "ray" in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


def lines(ledger: Path, event: str) -> list[dict]:
    whole = ledger.read_text().split("\n")[:-1] if ledger.exists() else []
    return [line for line in map(json.loads, whole) if line["event"] == event]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["ctrl-c", "sigterm", "sigkill"])
def test_tune_that_is_interrupted_goes_on_also_from_a_truncated_state_of_tune(cli, study_file, tmp_path, stop):
    study_file(SLOW)
    ledger = tmp_path / "runs/slow/ledger/FrozenLake-v1~q.jsonl"
    process = start(tmp_path, "study.yaml", "--workers", "2")
    try:
        wait_until(lambda: lines(ledger, "ended") and len(lines(ledger, "suggested")) > 2, 120, "a finished configuration")
        os.kill(process.pid, stop)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    if stop != signal.SIGKILL:
        assert process.returncode == 130
        assert "the same command continues" in errors
        assert "Traceback" not in errors
    wait_until(lambda: not of_ray(tmp_path), 60, "Ray's processes to be gone")
    ended = {line["id"]: line for line in lines(ledger, "ended")}
    assert 0 < len(ended) < 5
    statuses = {
        path: path.stat().st_mtime_ns for id in ended for path in tmp_path.glob(f"runs/slow/search/*/q.{id}/*/status.json")
    }
    states_of_tune = [path for path in (tmp_path / "runs/slow/ray").rglob("*") if path.is_file()]
    assert states_of_tune
    for path in states_of_tune:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    ledger.write_bytes(ledger.read_bytes() + b'{"event": "repo')
    done = cli("tune", "study.yaml", "--workers", "2")
    assert done.returncode == 0, done.stderr
    assert {path: path.stat().st_mtime_ns for path in statuses} == statuses  # not run again
    assert sorted(line["id"] for line in lines(ledger, "ended")) == [f"c{i:04}" for i in range(5)]  # none lost, none twice
    calm = cli("tune", "study.yaml", "--workers", "2", "--out", "calm")
    assert calm.returncode == 0, calm.stderr
    assert tuned(tmp_path / "runs/slow") == tuned(tmp_path / "calm/slow")


@pytest.mark.slow
def test_tune_survives_a_killed_worker(study_file, tmp_path):
    study_file(SLOW.replace("num_samples: 5", "num_samples: 2"))
    ledger = tmp_path / "runs/slow/ledger/FrozenLake-v1~q.jsonl"
    process = start(tmp_path, "study.yaml", "--workers", "1", "--json")
    wait_until(lambda: len(lines(ledger, "reported")) >= 2, 120, "an evaluation")
    workers = [pid for pid in of_ray(tmp_path) if (Path(f"/proc/{pid}/cmdline").read_bytes()).startswith(b"ray::")]
    workers = [pid for pid in workers if b"Trainable" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 1
    os.kill(workers[0], signal.SIGKILL)
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, output + errors
    marks = [(line["id"], line["mark"]) for line in lines(ledger, "reported")]
    assert marks == [(f"c{i:04}", mark) for i in range(2) for mark in range(1, 11)]  # none lost, none twice


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "searcher"), [("{name: asha, reduction_factor: 2}", "optuna"), ("median", "random"), ("none", "grid")]
)
def test_tune_with_every_searcher_and_scheduler(cli, study_file, tmp_path, scheduler, searcher):
    if searcher == "optuna":
        pytest.importorskip("optuna")
    space = "{agents.q.alpha: {choice: [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9]}}"
    text = GOOD.replace("steps: 2_000", "steps: 8_000")
    study_file(text if searcher != "grid" else text.replace("  num_samples: 3\n", ""))
    sets = [f"tune.scheduler={scheduler}", f"tune.searcher={searcher}", f"tune.space={space}"]
    sets += [] if searcher == "grid" else ["tune.num_samples=8"]
    done = cli("tune", "study.yaml", "--workers", "2", "--json", *[part for value in sets for part in ("--set", value)])
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    counts = told["tried"]["FrozenLake-v1~q"]
    assert sum(counts.values()) == 8
    assert counts["failed"] == 0
    assert (counts["stopped"] > 0) == (scheduler != "none")
    for path in tmp_path.glob("runs/lake/search/*/*/seed=*/status.json"):
        assert json.loads(path.read_text())["status"] in ("finished", "stopped")
    if searcher == "grid":
        tried = [
            line["values"]["agents.q.alpha"] for line in lines(tmp_path / "runs/lake/ledger/FrozenLake-v1~q.jsonl", "ended")
        ]
        assert sorted(tried) == [0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9]


@pytest.mark.slow
def test_tune_goes_on_when_a_configuration_of_a_users_agent_fails(cli, study_file, tmp_path):
    (tmp_path / "breaking.py").write_text(
        "from mpagents.agents.q_learning import QLearning\n\n\nclass Agent(QLearning):\n    def train(self, env, num_steps):\n"
        "        if self.config.alpha > 0.6:\n            raise RuntimeError('too much')\n"
        "        yield from super().train(env, num_steps)\n"
    )
    text = GOOD.replace("name: q_learning", "name: 'breaking:Agent'").replace("  num_samples: 3\n", "")
    study_file(text.replace("{loguniform: [0.01, 0.9]}", "{choice: [0.5, 0.9]}").replace("[0.1, 0.2, 0.4]", "[0.1]"))
    done = cli("tune", "study.yaml", "--workers", "2", "--set", "tune.searcher=grid")
    assert done.returncode == 0, done.stderr
    assert "failed: FrozenLake-v1~q c0001: FrozenLake-v1/q.c0001/seed=10000: too much" in done.stderr
    assert "Traceback" not in done.stderr
    assert "FrozenLake-v1~q: 1 finished, 1 failed; best q.c0000 (alpha 0.5, epsilon 0.1)" in done.stdout


@pytest.mark.slow
def test_tune_of_a_population_copies_the_best_and_continues(study_file, tmp_path):
    text = (
        GOOD.replace("steps: 2_000", "steps: 20_000")
        .replace("every: 500", "every: 2_000")
        .replace("num_samples: 3", "num_samples: 4")
    )
    study_file(text.replace("  seeds: 2\n", "  seeds: 1\n  scheduler: pbt\n"))
    ledger = tmp_path / "runs/lake/ledger/FrozenLake-v1~q.jsonl"
    process = start(tmp_path, "study.yaml", "--workers", "2")
    wait_until(lambda: list(tmp_path.glob("runs/lake/search/*/*.g1")), 180, "a copy")
    os.kill(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (0, 130)
    done = subprocess.run(
        [sys.executable, "-m", "mpagents", "tune", "study.yaml", "--workers", "2"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert sorted(line["id"] for line in lines(ledger, "ended")) == ["c0000", "c0001", "c0002", "c0003"]
    for path in tmp_path.glob("runs/lake/search/*/*/generation.json"):
        told = json.loads(path.read_text())
        if told["of"] is None:
            continue
        of = f"q.{told['of']['id']}.g{told['of']['generation']}"
        donor = json.loads((path.parent.parent / of / "generation.json").read_text())["values"]
        trial = json.loads((path.parent / "seed=10000/trial.json").read_text())["agent"]["config"]
        assert trial["alpha"] == told["values"]["agents.q.alpha"] != donor["agents.q.alpha"]
        assert trial["epsilon"] == told["values"]["agents.q.epsilon"]


@pytest.mark.slow
def test_perturbable_settings_are_read_while_an_agent_learns():
    """An agent that takes another's state, and another value of such a setting, learns something else from there on."""
    import gymnasium as gym

    from mpagents import make_agent
    from mpagents.tune_pairs import PERTURBABLE

    changed = {"epsilon": 0.9, "alpha_decay": 0.5, "beta": 0.9, "max_grad_norm": 1e-3, "clip_ratio": 1e-3, "gae_lambda": 0.1}
    fixed = {
        "dqn": {"prioritised": True, "learning_starts": 100},
        "td": {"policy": "uniform"},
        "model_based": {"planning": "dyna"},
    }
    for name, keys in PERTURBABLE.items():
        deep = name in ("dqn", "reinforce", "actor_critic")
        env_id, steps = ("CartPole-v1", 600) if deep else ("FrozenLake-v1", 500)
        base = {
            **fixed.get(name, {}),
            **({"log_every": 100} if name != "reinforce" else {}),
            **({"num_envs": 1} if deep else {}),
        }

        def learnt(settings: dict, begun: dict | None, to: int, name=name, env_id=env_id) -> dict:
            env = gym.make_vec(env_id, num_envs=1, vectorization_mode="sync")
            agent = make_agent(name, env, **settings)
            if begun is not None:
                agent.load_state_dict(begun)
            for _ in agent.train(env, to):
                pass
            return agent.state_dict()

        def numbers(state: object) -> list[np.ndarray]:
            if isinstance(state, dict):
                return [
                    found for key, part in state.items() if key not in ("rng", "collector", "env") for found in numbers(part)
                ]
            is_array = hasattr(state, "shape") and getattr(state, "ndim", 0) > 0
            return [np.array(state, dtype=float)] if is_array and str(getattr(state, "dtype", "")) != "object" else []

        begun = json_like(learnt(base, None, steps))
        same_again = numbers(learnt(base, begun, 2 * steps))
        assert all(map(np.array_equal, same_again, numbers(learnt(base, begun, 2 * steps))))
        for key in keys:
            value = changed.get(key, 0.05)
            other = numbers(learnt({**base, key: value}, begun, 2 * steps))
            assert any(not np.array_equal(a, b) for a, b in zip(same_again, other)), f"{name}.{key} is not read"


def json_like(state):
    """A copy that training doesn't write into."""
    import copy

    return copy.deepcopy(state)


def test_perturbed_values_stay_in_the_space():
    space, rng = study().pairs[0].space, np.random.default_rng(0)
    values = dict(VALUES)
    for _ in range(200):
        values = perturbed_values(space, values, rng, 0.25)
        assert 0.01 <= values["agents.q.alpha"] <= 0.9
        assert values["agents.q.epsilon"] in (0.1, 0.2, 0.4)
