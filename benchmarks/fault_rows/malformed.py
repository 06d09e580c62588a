"""Study files with one thing wrong, drawn by hypothesis."""

from __future__ import annotations

import contextlib
import json
import random
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from benchmarks.fault_rows.outcome import Outcome

SOUND: dict[str, Any] = {
    "name": "small",
    "envs": ["FrozenLake-v1", {"id": "Taxi-v4", "label": "taxi", "discount": 0.9, "max_episode_steps": 100}],
    "agents": ["value_iteration", {"name": "q_learning", "label": "fast", "alpha": 0.5, "steps": 2_000}],
    "seeds": 2,
    "steps": 1_000,
    "evaluation": {"every": 500, "episodes": 3},
    "checkpoint": {"every": 500, "keep": 2},
    "skip_incompatible": False,
}


def studies(times: int, folder: Path, rng: random.Random) -> Outcome:
    """Malformed study files, drawn by hypothesis."""
    import hypothesis

    from mpagents.configuration import InvalidInput
    from mpagents.study import Study
    from mpagents.study_file import parse_study

    outcome = Outcome(0, {"right key named, %": 0.0, "s at most each": 0.0, "accepted": 0}, {"tracebacks": 0, "over 1 s": 0})
    named: list[bool] = []

    def examine(text: str, place: tuple) -> None:
        outcome.times += 1
        begun = time.process_time()
        try:
            Study.from_values(parse_study(text)[0]).trials()
            outcome.counts["accepted"] += 1
            named.append(False)
        except InvalidInput as error:
            if place:  # a text that is no YAML has no keys
                named.append(any(problem.place in (place, place[:-1] or place) for problem in error.problems))
        except Exception as error:  # noqa: BLE001 - counted, and shown
            outcome.faults["tracebacks"] += 1
            print(f"{type(error).__name__}: {error}\n{text[:300]}", file=sys.stderr)
        seconds = time.process_time() - begun  # of the processor: others may be using it
        outcome.counts["s at most each"] = max(outcome.counts["s at most each"], seconds)
        outcome.faults["over 1 s"] += seconds > 1

    with contextlib.suppress(InvalidInput):
        Study.from_values(SOUND).trials()  # what is imported once isn't timed
    given = hypothesis.given(malformed())
    settings = hypothesis.settings(
        max_examples=times, database=None, derandomize=True, deadline=None, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings(given(lambda case: examine(*case)))()
    outcome.counts["right key named, %"] = 100.0 * sum(named) / max(1, len(named))
    outcome.faults["below 90 % named"] = int(outcome.counts["right key named, %"] < 90)
    del folder, rng
    return outcome


def malformed() -> Any:
    """(text of a study file with one thing wrong, its place; of a text that is no YAML: nowhere)."""
    import yaml
    from hypothesis import strategies as st

    places = [
        (*(key,), value) for key, value in SOUND.items()
    ] + [(key, inner, value) for key in ("evaluation", "checkpoint") for inner, value in SOUND[key].items()]  # fmt: skip
    places += [("envs", 1, key, value) for key, value in SOUND["envs"][1].items()]
    places += [("agents", 1, key, value) for key, value in SOUND["agents"][1].items()]
    words = st.text(st.characters(codec="utf-8"), max_size=12)
    numbers = st.sampled_from([-1, 0, 0.5, -1e308, 1e19, 10**19, 1e308, float("nan"), float("inf"), 10**400])
    wrong = st.one_of(
        numbers, words, st.none(), st.booleans(), st.lists(words, max_size=3), st.dictionaries(words, words, max_size=2)
    )

    def put(place: tuple, new: Any, rename: str | None = None) -> str:
        values = json.loads(json.dumps(SOUND))
        inner = values
        for part in place[:-1]:
            inner = inner[part]
        if rename is None:
            inner[place[-1]] = new
        else:
            inner[rename] = inner.pop(place[-1])
        return yaml.safe_dump(values, allow_unicode=True)

    def valued(drawn: tuple[tuple, Any]) -> tuple[str, tuple]:
        (*place, _), new = drawn
        return put(tuple(place), new), tuple(place)

    def renamed(drawn: tuple[tuple, str]) -> tuple[str, tuple]:
        (*place, _), extra = drawn
        return put(tuple(place), None, f"{place[-1]}{extra}"), (*place[:-1], f"{place[-1]}{extra}")

    def torn(drawn: tuple[int, str]) -> tuple[str, tuple]:
        text = yaml.safe_dump(SOUND)
        return text[: drawn[0]] + drawn[1] + text[drawn[0] :], ()

    keys = st.text("abcdefgh_", min_size=1, max_size=4)
    cases = st.one_of(
        st.tuples(st.sampled_from(places), wrong).map(valued),
        st.tuples(st.sampled_from(places), keys).map(renamed),
        st.tuples(
            st.integers(0, 200), st.sampled_from(["[", "{", "\t", "\x00", "!!python/name:os.system ", "*a ", "&a ", "? "])
        ).map(torn),
    )
    return cases.filter(lambda case: is_malformed(case[0]))


def is_malformed(text: str) -> bool:
    """Whether a text that was changed isn't, by chance, a study file that says something else and is right."""
    from mpagents.configuration import InvalidInput
    from mpagents.study import Study
    from mpagents.study_file import parse_study

    try:
        Study.from_values(parse_study(text)[0]).trials()
    except InvalidInput:
        return True
    except Exception:  # noqa: BLE001 - it is examined again
        return True
    return False
