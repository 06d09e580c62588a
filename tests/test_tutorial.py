"""The tutorial's commands and code run as they stand on the page, with its large numbers made small."""

from __future__ import annotations

import re

from benchmarks.tutorial import PAGE, blocks, follow

SHRUNK = 50  # by which the numbers with thousands are divided


def test_tutorial_runs_from_frames_to_a_policy_learned_in_a_dream(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = re.sub(r"\b\d+(_\d{3})+\b", lambda number: str(int(number[0]) // SHRUNK), PAGE.read_text())
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
