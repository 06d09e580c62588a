"""A study's pairs (environment × agent × encoder) with their part of the space, and what a searched one can't have."""

from __future__ import annotations

from mpagents.agents import agent_class
from mpagents.configuration import Problem
from mpagents.specification import TrialSpec, slug
from mpagents.study import Study
from mpagents.tune_places import label_of
from mpagents.tune_space import Domain
from mpagents.tune_specification import Pair, Place, Tuning

# Settings that an agent reads at each update, so that they may change while it learns. Others shape what it has learnt
# (networks, replay, tables). A user's agent names its own in a class attribute `perturbable`.
PERTURBABLE = {
    "q_learning": ("alpha", "alpha_decay", "epsilon"),
    "sarsa": ("alpha", "alpha_decay", "epsilon"),
    "td": ("alpha", "alpha_decay"),
    "monte_carlo": ("alpha", "alpha_decay", "epsilon"),
    "model_based": ("alpha", "alpha_decay", "epsilon"),
    "dqn": ("learning_rate", "epsilon", "beta", "max_grad_norm"),
    "reinforce": ("learning_rate", "value_learning_rate", "entropy_coefficient", "max_grad_norm"),
    "actor_critic": (
        "learning_rate", "gae_lambda", "clip_ratio", "value_coefficient", "entropy_coefficient", "max_grad_norm",
    ),
}  # fmt: skip


def pairs_of(study: Study, trials: list[TrialSpec], domains: dict[str, Domain], places: dict[str, Place]) -> list[Pair]:
    """Every pair of the study, in its order."""
    values = study.to_values()
    labels = {section: [label_of(section, entry) for entry in values[section]] for section in ("agents", "encoders")}
    envs = list(dict.fromkeys(trial.env.label for trial in trials))
    given = [entry.get("label") or slug(entry["id"]) if isinstance(entry, dict) else slug(entry) for entry in values["envs"]]
    pairs: dict[tuple[str, str, str], Pair] = {}
    for trial in trials:
        key = (trial.env.label, trial.agent.label, trial.encoder.label if trial.encoder else "")
        if key in pairs:
            continue
        at = {"agents": labels["agents"].index(key[1]), "encoders": labels["encoders"].index(key[2] or None)}
        alone = {section: [values[section][i]] for section, i in at.items()} | {"envs": [values["envs"][given.index(key[0])]]}
        own = {name: place for name, place in places.items() if name in domains and at[str(place[0])] == place[1]}
        kept = {name: value for name, value in values.items() if name not in ("tune", "skip_incompatible")}
        pairs[key] = Pair(
            kept | alone, *key, {name: domains[name] for name in own},
            {name: (place[0], 0, *place[2:]) for name, place in own.items()},
            1 if trial.planner else -(-trial.steps // trial.evaluation.every),
        )  # fmt: skip
    return sorted(pairs.values(), key=lambda pair: envs.index(pair.env))


def problems_of_pairs(tuning: Tuning, pairs: list[Pair], trials: list[TrialSpec]) -> list[Problem]:
    """What a searched pair can't have: a metric that isn't known of it, a scheduler that has nothing to go by."""
    from mpagents.building import prepare

    found: dict[str, Problem] = {}

    def say(place: str, message: str) -> None:
        found.setdefault(place, Problem(("tune", *place.split(".", 1)), message))

    scheduler = tuning.scheduler
    for pair in (pair for pair in pairs if pair.space):
        spec = next(trial for trial in trials if (trial.env.label, trial.agent.label) == (pair.env, pair.agent))
        if tuning.metric == "regret" and (prepare(spec)[1].mdp is None or pair.encoder):
            say("metric", f"regret is known of finite MDPs alone, not of {pair.env}; expected mean_reward")
        if scheduler.name != "none" and pair.marks < 2:
            what = f"{pair.agent} on {pair.env} is evaluated once (evaluation.every: {spec.evaluation.every:,})"
            say("scheduler", f"{what}; {scheduler.name} needs several evaluations in {spec.steps:,} steps")
        waits = {key: getattr(scheduler, key) for key in ("grace", "every") if getattr(scheduler, key)}
        for key, wait in waits.items():
            if wait >= spec.steps:
                say(f"scheduler.{key}", f"got {wait:,}; expected less than the {spec.steps:,} steps of a trial")
        if scheduler.name == "pbt":
            able = getattr(agent_class(spec.agent.name), "perturbable", PERTURBABLE.get(spec.agent.name, ()))
            for key, place in pair.places.items():
                if place[0] != "agents" or place[2] not in able:
                    what = f"{place[2]!r} can't change while {pair.agent} learns"
                    fix = f"pbt takes what an agent reads at each update: {', '.join(able)}" if able else "pbt can't tune it"
                    say(f"space.{key}", f"{what}; {fix}")
    return list(found.values())
