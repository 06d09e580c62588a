"""A study's folder, written here as `trial.py` writes it, read back, summarised, and shown."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mpagents.results.curves import common_times, learning_curves
from mpagents.results.figures import log_ticks, reward_figure
from mpagents.results.report import format_estimate, format_number, write_report
from mpagents.results.summary import read_study, summarise, write_summary

ATTACK = "<script>document.title='taken'</script><img src=x onerror=alert(1)>"
STEPS = (0, 5000, 10_000)
SCORES = (4.0, 1.0, 3.0, 2.0, 100.0)  # by seed: the IQM is 3


def write_trial(folder: Path, path: str, *, planner=False, status="finished", score=1.0, regret=None, steps=STEPS) -> None:
    trial = folder / path
    trial.mkdir(parents=True)
    seed = path.rpartition("=")[2]
    final = {"mean_reward": score, "std_reward": 0.0, "mean_ep_length": 8.0, "episodes": 20, "truncated": 0.25}
    error = (
        {"type": "FloatingPointError", "message": ATTACK, "traceback": f"Traceback: {ATTACK}"} if status == "failed" else None
    )
    if regret is not None:
        final["regret"] = regret
    best = None if planner else {**final, "mean_reward": score + 1, "step": 5000}
    (trial / "trial.json").write_text(json.dumps({"path": path, "seed": int(seed), "steps": 10_000, "planner": planner}))
    results = {"status": status, "steps": 10_000, "seconds": 1.5, "attempts": 1, "error": error}
    (trial / "status.json").write_text(json.dumps(results | ({"final": final, "best": best} if status == "finished" else {})))
    lines = [{"step": 1, "time": 0.1, "rollout/ep_rew_mean": 0.0}]
    for step in (7,) if planner else steps:
        line = {"step": step, "time": 0.5, "eval/mean_reward": score * step / 10_000}
        lines.append(line if regret is None else {**line, "eval/regret": regret if step == 10_000 else 0.5})
    (trial / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def write_study(folder: Path, trials: dict[str, dict], **study) -> Path:
    for path, options in trials.items():
        write_trial(folder, path, **options)
    content = {"name": "demo", "study": {"evaluation": {"every": 5000}, **study}, "versions": {"mpagents": "0.1.0"}}
    folder.joinpath("study.json").write_text(json.dumps({**content, "trials": list(trials), "skipped": []}))
    return folder


@pytest.fixture
def folder(tmp_path):
    trials = {f"lake/q/seed={seed}": {"score": score, "regret": 0.0} for seed, score in enumerate(SCORES)}
    trials |= {f"lake/q+vae/seed={seed}": {"score": score / 2, "regret": 0.01} for seed, score in enumerate(SCORES)}
    trials |= {f"lake/plan/seed={seed}": {"planner": True, "score": 5.0, "regret": 0.0} for seed in range(2)}
    trials |= {"pole/q/seed=0": {"score": 9.0}, "pole/q/seed=1": {"status": "failed"}}
    return write_study(tmp_path / "demo", trials, note=ATTACK)


def test_read_study_gives_every_trial_and_every_evaluation(folder):
    results = read_study(folder)
    assert len(results.trials) == 14 and results.unreadable == ()
    assert list(results.evaluations.columns) == ["env", "agent", "encoder", "seed", "step", "eval/mean_reward", "eval/regret"]
    assert len(results.evaluations) == 10 * 3 + 2 + 2 * 3
    assert set(results.evaluations["encoder"]) == {"", "vae"}


def test_summary_has_one_row_per_environment_and_agent(folder):
    table = summarise(read_study(folder)).set_index(["env", "agent", "encoder"])
    assert table.columns[-1] == "seconds"
    row = table.loc["lake", "q", ""]
    assert (row["mean_reward"], row["best_mean_reward"], row["regret"], row["regret_high"]) == (3.0, 4.0, 0.0, 0.0)
    assert row["mean_reward_low"] < 3.0 < row["mean_reward_high"]
    assert (row["seeds_finished"], row["seeds_asked"], row["failed"], row["steps"]) == (5, 5, 0, 10_000)
    assert table.loc[("lake", "plan", ""), "steps"] == 0
    row = table.loc["pole", "q", ""]
    assert (row["seeds_finished"], row["seeds_asked"], row["failed"], row["mean_reward"]) == (1, 2, 1, 9.0)
    assert np.isnan([row["mean_reward_low"], row["regret"]]).all()


def test_write_summary_is_readable_deterministic_and_leaves_nothing_else(folder):
    before = set(folder.iterdir())
    csv, js = write_summary(folder)
    first = csv.read_bytes(), js.read_bytes()
    assert first == tuple(path.read_bytes() for path in write_summary(folder))
    assert set(folder.iterdir()) - before == {csv, js}
    rows = json.loads(js.read_text(), parse_constant=pytest.fail)["rows"]  # no NaN in it
    assert [row["mean_reward"] for row in rows] == pd.read_csv(csv)["mean_reward"].tolist() == [3.0, 1.5, 5.0, 9.0]
    assert rows[3]["regret"] is None


def test_read_study_names_what_it_cannot_read(folder):
    (folder / "lake/q/seed=0/status.json").write_text('{"status": "fini')
    (folder / "lake/q/seed=1/status.json").unlink()
    with (folder / "lake/q/seed=2/metrics.jsonl").open("a") as file:
        file.write('{"step": 15000, "eval/mea')
    study = json.loads((folder / "study.json").read_text())
    (folder / "study.json").write_text(
        json.dumps({**study, "trials": [*study["trials"], "../outside/seed=0", "pole/late/seed=0"]})
    )
    results = read_study(folder)
    status = results.trials.set_index("path")["status"]
    assert status["lake/q/seed=0"] == "unreadable"
    assert status["lake/q/seed=1"] == status["pole/late/seed=0"] == "pending"
    assert [text.split(":")[0] for text in results.unreadable] == [
        "lake/q/seed=0/status.json",
        "lake/q/seed=2/metrics.jsonl",
        "study.json",
    ]
    assert "line 5" in results.unreadable[1]
    assert summarise(results).loc[0, "seeds_finished"] == 3
    assert "3 files could not be read" in write_report(folder).read_text()


def test_read_study_refuses_a_folder_without_a_study(tmp_path):
    with pytest.raises(ValueError, match=r"not the folder of a study: .*study\.json does not exist"):
        read_study(tmp_path)


def test_common_times_keep_exact_steps_and_drop_what_a_seed_lacks():
    rows = pd.DataFrame({"seed": [0, 0, 0, 1, 1], "step": [0, 5000, 10_000, 0, 10_000], "y": [1.0, 2, 3, 4, 5]})
    steps, scores = common_times(rows, "y", every=5000)
    assert steps.tolist() == [0, 10_000] and scores.tolist() == [[1, 3], [4, 5]]


def test_common_times_align_seeds_that_pass_the_mark_at_different_steps():
    rows = pd.DataFrame({"seed": [0, 0, 0, 1, 1, 1], "step": [0, 5003, 10_020, 0, 5011, 10_000], "y": [1.0, 2, 3, 4, 5, 6]})
    steps, scores = common_times(rows, "y", every=5000)
    assert steps.tolist() == [0, 5007, 10_010] and scores.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_learning_curves_hold_the_iqm_of_finished_seeds_and_planners_as_one_value(folder):
    q, vae, plan = learning_curves(read_study(folder), "lake", "mean_reward")
    assert (q.contender, vae.contender, plan.contender) == ("q", "q+vae", "plan")
    assert q.num_seeds == 5 and q.steps.tolist() == list(STEPS) and q.value.tolist() == [0.0, 1.5, 3.0]
    assert plan.planner and plan.steps.size == 0 and plan.value.tolist() == [5.0]
    assert [curve.num_seeds for curve in learning_curves(read_study(folder), "pole", "mean_reward")] == [1]


@pytest.mark.parametrize(("low", "high"), [(0.013, 0.6), (1e-8, 3.0), (0.2, 0.21), (5.0, 400.0), (1.0, 1.0), (1e-12, 1e4)])
def test_log_ticks_cover_the_values_and_put_zero_below_them(low, high):
    floor, ticks = log_ticks(low, high, zero=True)
    assert ticks[0] == floor < low and ticks == sorted(ticks) and 2 <= len(ticks) <= 11
    assert low / 10 <= ticks[1] <= high * 2.5
    assert floor not in log_ticks(low, high, zero=False)[1]


def figures_of(report: Path) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', report.read_text())[1])


def test_report_draws_a_regret_of_zero_on_the_page(folder):
    figure = figures_of(write_report(folder))["figure-0-regret"]
    axis = figure["layout"]["yaxis"]
    assert axis["type"] == "log" and axis["ticktext"][0] == "0"
    q = next(trace for trace in figure["data"] if trace["name"] == "q" and "customdata" in trace)
    assert q["customdata"][-1][0] == 0.0 and q["y"][-1] == axis["tickvals"][0] > 10 ** axis["range"][0]


def test_report_gives_each_agent_one_colour_throughout(folder):
    page = write_report(folder)
    colours = {}
    for figure in figures_of(page).values():
        for trace in figure["data"]:
            if "customdata" in trace:
                colours.setdefault(trace["name"], set()).add(trace["line"]["color"])
    assert all(len(of_agent) == 1 for of_agent in colours.values()) and len(colours) == 3
    assert len(set.union(*colours.values())) == 3


def test_report_figures_are_what_plotly_accepts(folder):
    from plotly.graph_objects import Figure

    figures = figures_of(write_report(folder))
    assert set(figures) == {"figure-0-mean_reward", "figure-0-regret", "figure-1-mean_reward"}
    for figure in figures.values():
        Figure(figure)  # raises on any property that plotly doesn't know


class Page(HTMLParser):
    """What a browser would run, load and show."""

    def __init__(self, text: str):
        super().__init__()
        self.scripts, self.handlers, self.loads, self.policy, self.shown = [], [], [], "", []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.handlers += [name for name in attributes if name.startswith("on")]
        self.loads += [
            attributes[name] for name in ("src", "href") if name in attributes and not attributes[name].startswith("#")
        ]
        if tag == "script":
            self.scripts.append(attributes)
        if attributes.get("http-equiv") == "Content-Security-Policy":
            self.policy = attributes["content"]

    def handle_data(self, data):
        self.shown.append(data)


def test_report_runs_no_script_but_its_own_and_loads_nothing(folder):
    page = Page(write_report(folder).read_text())
    assert page.handlers == [] and page.loads == []
    assert page.policy.startswith("default-src 'none'; script-src 'nonce-")
    nonce = re.search(r"'nonce-([^']+)'", page.policy)[1]
    assert page.scripts == [{"nonce": nonce}, {"type": "application/json", "id": "figures"}, {"nonce": nonce}]
    shown = "".join(page.shown)
    assert shown.count(ATTACK) >= 2  # the error's message and its traceback, as text
    assert "13 of 14 trials finished, 1 failed" in shown and "1 of 2" in shown and "tensorboard --logdir" in shown


def test_report_escapes_a_hostile_label_in_table_and_figure(tmp_path):
    label = "<svg onload=alert(1)>"
    write_study(tmp_path, {f"{label}/{label}/seed={seed}": {} for seed in range(2)})
    page = Page(write_report(tmp_path).read_text())
    assert page.handlers == [] and len(page.scripts) == 3
    (curve,) = learning_curves(read_study(tmp_path), label, "mean_reward")
    assert all("<svg" not in trace["name"] for trace in reward_figure([curve], [label])["data"])


def test_report_of_a_study_that_has_not_begun_says_so(tmp_path):
    folder = write_study(tmp_path, {})
    (folder / "study.json").write_text(json.dumps({"name": "demo", "trials": ["lake/q/seed=0", "lake/q/seed=1"]}))
    shown = "".join(Page(write_report(folder).read_text()).shown)
    assert "0 of 2 trials finished, 2 not started" in shown and "no learning agent has finished" in shown
    (folder / "study.json").write_text(json.dumps({"name": "demo", "trials": []}))
    assert "asks for no trials" in write_report(folder).read_text()


def test_numbers_have_the_digits_that_their_interval_deserves():
    assert format_estimate(0.011583, 0.0025189, 0.03594) == {"value": "0.012", "interval": "[0.003, 0.036]"}
    assert format_estimate(-21.23, -32.7, -13.0) == {"value": "−21", "interval": "[−33, −13]"}
    assert format_estimate(0.7359999, 0.7359998, 0.736) == {"value": "0.7360", "interval": "[0.7360, 0.7360]"}
    assert format_estimate(1.0, float("nan"), float("nan")) == {"value": "1.00", "interval": ""}
    assert [format_number(x) for x in (0.0, -12345.6, 0.5, 33.51, float("nan"), 2.5e-7)] == [
        "0",
        "−12,346",
        "0.500",
        "33.5",
        "–",
        "2.5e−07",
    ]
