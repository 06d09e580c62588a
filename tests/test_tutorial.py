"""The tutorial's commands and code run as they stand on the page, with its large numbers made small."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks.tutorial import PAGE, blocks, follow, run_command, words

SHRUNK = 50  # by which the numbers with thousands are divided


def shrunk(page: str) -> str:
    return re.sub(r"\b(\d+(_\d{3})+|\d+000)\b", lambda number: str(int(number[0]) // SHRUNK), page)


def test_tutorial_runs_from_frames_to_a_policy_learned_in_a_dream(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = shrunk(PAGE.read_text())
    page = page.replace("n_eval_episodes=200", "n_eval_episodes=2")
    session, seconds = follow(blocks(page), seed=0)
    assert [step[:1] for step in seconds if step] == ["1", "2", "3", "4", "5", "6"]
    assert set(session["told"]) == {"linear", "mlp"}
    assert len(session["dreamt"]) == len(session["episode"]["x"][0])
    for figure in ("real", "learned"):
        assert -1 <= session[figure] <= 1, figure


def test_blocks_of_the_page_are_all_followed():
    fences = re.findall(r"^```\w+$", PAGE.read_text(), re.MULTILINE)
    assert len(blocks(PAGE.read_text())) == len(fences)


@pytest.mark.parametrize("name", ["dreams", "world-models"])
def test_a_dream_is_made_by_the_page_s_commands_and_code(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = shrunk((PAGE.parent / f"{name}.md").read_text())
    for command in re.findall(r"^mpagents (?:record|fit) .*$", page, re.MULTILINE):
        given = words(command)
        run_command(given if given[0] == "record" else [*given, "--steps", "10"], seed=0)
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    session: dict = {}
    exec(code, session)
    env = session["env"]
    seen, _ = env.reset(seed=0)
    assert env.single_observation_space.contains(seen[0]) and len(seen) == env.num_envs
    assert np.isfinite(env.step(env.action_space.sample())[1]).all()
