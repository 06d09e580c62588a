"""Study files: everything wrong is told at once, with its place, what was expected and the nearest name."""

from __future__ import annotations

import json

import pytest
import typer

from mpagents.cli_shared import whole
from mpagents.configuration import InvalidInput
from mpagents.study import Study
from mpagents.study_file import apply_overrides, parse_study

GOOD = """
name: small
envs: [FrozenLake-v1, {id: Taxi-v4, label: taxi, discount: 0.9}]
agents: [value_iteration, {name: q_learning, label: fast, alpha: 0.5, steps: 2_000}]
seeds: 2
steps: 1e3
"""


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        values, _ = parse_study(text)
        Study.from_values(apply_overrides(values, overrides)).trials()
    return [str(problem) for problem in caught.value.problems]


def test_study_expands_seed_by_seed():
    trials = Study.from_values(parse_study(GOOD)[0]).trials().trials
    assert [t.path for t in trials[:4]] == [
        "FrozenLake-v1/value_iteration/seed=0", "FrozenLake-v1/fast/seed=0", "taxi/value_iteration/seed=0", "taxi/fast/seed=0",
    ]  # fmt: skip
    assert len(trials) == 8
    assert [t.steps for t in trials[:2]] == [1_000, 2_000]
    assert trials[2].env.discount == 0.9
    assert trials[1].agent.config["alpha"] == 0.5
    assert [t.planner for t in trials[:2]] == [True, False]


def test_study_tells_every_problem_with_its_place():
    text = GOOD.replace("alpha", "alpah").replace("seeds: 2", "seed: 2").replace("discount: 0.9", "discount: 1.9")
    problems = problems_of(text.replace("value_iteration", "value_iteratoin"))
    assert len(problems) == 4
    assert problems[0].startswith("seed: unknown key; did you mean 'seeds'?")
    assert problems[1].startswith("envs.1.discount: got 1.9; expected less than or equal to 1")
    assert problems[2].startswith("agents.0.name: unknown agent 'value_iteratoin'; did you mean 'value_iteration'?")
    assert problems[3].startswith("agents.1.alpah: unknown key; did you mean 'alpha'?")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("agents.1.alpha=often", "agents.1.alpha: got 'often'; expected a valid number"),
        ("agents.1.alpha=2", "agents.1.alpha: got 2; expected less than or equal to 1"),
        ("agents.1.double=1", "agents.1.double: got 1; expected a valid boolean"),
        ("agents.1.epsilon.strat=1", "agents.1.epsilon"),
        ("agents.7.alpha=1", "--set agents.7.alpha=1: 7 is not in a list of 2; expected an index 0 … 1"),
        ("agents.1.alpha", "--set agents.1.alpha: expected key=value"),
        ("seeds=[1,1]", "seeds: got [1, 1]; expected a count, or a list of different seeds"),
        ("seeds=0", "seeds: got 0; expected greater than 0"),
        ("name=../out", "name: got '../out'; expected letters, digits"),
        ("agents.1.label=value_iteration", "agents.0: the label 'value_iteration' is given to two"),
        ("envs.0=FrozenLak-v1", "envs.0: environment 'FrozenLak-v1'"),
        ("envs.0=nowhere:Env-v0", "envs.0: environment 'nowhere:Env-v0'"),
        ("envs.0.id=7", "envs.0.id: got 7; expected a valid string"),
        ("envs.1.kwargs.nothing=1", "envs.1: environment 'Taxi-v4'"),
        ("envs.1.wrappers=[gymnasium.wrappers:Nothing]", "envs.1: wrapper 'gymnasium.wrappers:Nothing'"),
        ("envs.0=CartPole-v1", "agents.0: on CartPole-v1: a planner needs"),
        ("steps=-1", "steps: got -1; expected greater than 0"),
        ("evaluation.evry=1", "evaluation.evry: unknown key; did you mean 'every'?"),
        ("agents.1.steps=0", "agents.1.steps: got 0; expected greater than 0"),
        ("envs.0={id: FrozenLake-v1, kwargs: {map_name: 9x9}}", "envs.0: environment 'FrozenLake-v1'"),
        ("envs.1.wrappers=[builtins:str]", "envs.1: wrapper 'builtins:str' gave a str; expected an environment"),
        ("envs.1.wrappers=[gymnasium.wrappers:TimeLimit]", "envs.1: wrapper 'gymnasium.wrappers:TimeLimit'"),
        ("envs.1.label=study.json", "envs.1.label: 'study.json' is the name of a file of results"),
        ("agents.0=os:path", "agents.0.name: agent 'os:path' is no agent: it has no Config"),
        ("agents.0=.x:Y", "agents.0.name: agent '.x:Y' should be a registered name"),
        ("encoders=[vea]", "encoders.0.model: unknown model 'vea'; did you mean 'vae'?"),
    ],
)
def test_study_refuses(override, expected):
    assert any(problem.startswith(expected) for problem in problems_of(GOOD, override)), problems_of(GOOD, override)


def test_study_unknown_key_of_a_schedule_has_its_nearest_name():
    problems = problems_of(GOOD, "agents.1.epsilon={strat: 1.0, end: 0.1}")
    assert any("agents.1.epsilon.strat: unknown key; did you mean 'start'?" in problem for problem in problems)


def test_study_leaves_out_incompatible_pairs_when_told_to():
    values, _ = parse_study(GOOD)
    expansion = Study.from_values(apply_overrides(values, ["envs.0=CartPole-v1", "skip_incompatible=true"])).trials()
    assert {(s.env, s.agent) for s in expansion.skipped} == {("CartPole-v1", "value_iteration"), ("CartPole-v1", "fast")}
    assert {t.env.label for t in expansion.trials} == {"taxi"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: a\nname: b", "given twice (line 1 and 2)"),
        ("- a\n- b", "expected keys such as name"),
        ("name: [", "not YAML"),
        ("name: !!python/object/apply:os.system ['true']", "not YAML"),
        ("a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\n"
         "d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]", "more than 100,000 values"),
        ("", "expected keys such as name"),
    ],
)  # fmt: skip
def test_study_file_refuses_what_is_not_a_study(text, expected):
    with pytest.raises(InvalidInput) as caught:
        parse_study(text)
    assert expected in str(caught.value)


def test_study_file_reads_exponents_as_numbers():
    values, lines = parse_study("steps: 1e5\nalpha: 1e-3\nlabel: 1e5x\nkwargs: {x: 2.5e1}")
    assert values == {"steps": 100_000, "alpha": 0.001, "label": "1e5x", "kwargs": {"x": 25.0}}
    assert lines[("kwargs", "x")] == 4


def test_trial_hash_depends_on_what_results_depend_on():
    values, _ = parse_study(GOOD)

    def hashes(*overrides):
        return [t.hash for t in Study.from_values(apply_overrides(values, overrides)).trials().trials]

    assert hashes() == hashes("name=other", "checkpoint.every=7")
    assert hashes()[1] != hashes("agents.1.alpha=0.4")[1]
    assert hashes()[1] != hashes("envs.0.discount=0.5")[1]
    assert len(set(hashes())) == 8


def test_cli_refuses_with_line_numbers_before_anything_starts(cli, study_file):
    study_file(GOOD.replace("alpha", "alpah"))
    done = cli("run", "study.yaml")
    assert done.returncode == 2
    assert done.stderr.startswith("study.yaml:4: agents.1.alpah: unknown key; did you mean 'alpha'?")
    assert "Traceback" not in done.stderr
    assert cli("run", "stud.yaml").stderr.count("did you mean 'study.yaml'?") == 1


def test_cli_dry_run_shows_the_trials_and_writes_nothing(cli, study_file, tmp_path):
    study_file(GOOD)
    done = cli("run", "study.yaml", "--dry-run", "--json", "--set", "seeds=1")
    assert done.returncode == 0
    assert len(json.loads(done.stdout)["trials"]) == 4
    assert not (tmp_path / "runs").exists()


def test_cli_takes_steps_as_people_write_them():
    assert [whole(text) for text in ("2e4", "20_000", "20000", 7)] == [20_000, 20_000, 20_000, 7]
    for text in ("1.5", "0", "-3", "nan", "1e400", "many"):
        with pytest.raises(typer.BadParameter, match="expected a whole number"):
            whole(text)
