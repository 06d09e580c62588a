"""One trial in one process, without Ray: seed → environment → encoder → agent → loop → results.

The agent's `train` is a generator; logging, evaluation, checkpoints and progress live in the loop around it. A trial that was
interrupted continues from its last checkpoint; what it then writes is what it would have written.
"""

from __future__ import annotations

import contextlib
import json
import sys
import time
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any

from gymnasium.vector import AutoresetMode

from mpagents.building import build_agent, prepare
from mpagents.encoding import EncodeVectorObservation, player
from mpagents.environments import make_vector
from mpagents.evaluation import evaluate, policy_table
from mpagents.results.attempt import Attempt
from mpagents.results.checkpoint import DamagedCheckpoint, load_checkpoint, load_latest, save_checkpoint
from mpagents.results.files import check_inside, remove_leftovers, write_json
from mpagents.results.logger import Logger
from mpagents.seeding import derive
from mpagents.snapshot import is_begun, is_exact, restore, snapshot
from mpagents.specification import TrialSpec, versions
from mpagents.standing import Progress
from mpagents.watch import count_from, time_limit

LOGGED_POINTS = 200  # at most about so many lines of training metrics a trial
PICTURE_TIMES = 4  # pictures of values and policies, spread over training

Steps = Generator[tuple[int, dict[str, float]], None, dict[str, Any]]  # yields (steps so far, last figures)


def run_trial(spec: TrialSpec, root: Path) -> dict[str, Any]:
    """Run or continue a trial in `root`/<path> to its end; returns its status, which is also written there."""
    steps = trial_steps(spec, root)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def trial_steps(spec: TrialSpec, root: Path, attempt: str | None = None) -> Steps:
    """The same as a generator of (steps so far, last evaluation's figures), which returns the status.

    Whatever the agent or the environment raises is recorded with its traceback: the status is then `failed`. `attempt`: the
    name of one that was begun for it (default: begin one here). Raises Superseded where a later attempt has begun.
    """
    check_inside(root, spec.path)
    folder = root / spec.path
    own = Attempt(folder, attempt) if attempt else Attempt.begin(folder)
    try:
        return (yield from _recorded(spec, root, own))
    except OSError:
        own.check()  # where that's why
        raise
    finally:
        own.end()


def _recorded(spec: TrialSpec, root: Path, own: Attempt) -> Steps:
    """Train; `status.json` says that it runs, and how it ended."""
    status: dict[str, Any] = {"status": "running", "hash": spec.hash}

    def write(name: str, content: dict[str, Any]) -> None:
        write_json(own.trial / name, content, own.folder)

    def hung(message: str) -> None:
        error = {"type": "TimeoutError", "message": message, "traceback": ""}
        with contextlib.suppress(OSError):  # superseded: the process is to end all the same
            write("status.json", status | {"status": "failed", "error": error})

    write("trial.json", spec.to_json() | {"versions": versions()})
    remove_leftovers(own.trial)
    write("status.json", status)
    try:
        with time_limit(spec.step_timeout, hung):
            status |= (yield from _train(spec, root, own)) | {"status": "finished", "error": None}
    except (Exception, SystemExit) as error:  # noqa: BLE001 - recorded, and told at the end of the study
        own.check()
        problem = {"type": type(error).__name__, "message": str(error), "traceback": traceback.format_exc()}
        status |= {"status": "failed", "error": problem}
    write("status.json", status)
    return status


class _Run:
    """The objects of a running trial, and what the loop does with them."""

    def __init__(self, spec: TrialSpec, root: Path, own: Attempt) -> None:
        self.spec, self.folder, self.own = spec, own.trial, own
        self.env_spec, self.spaces, self.shape = prepare(spec)
        self.agent, self.encoder = build_agent(spec, self.spaces, root)
        self.player = player(self.agent, self.encoder)  # takes observations as the environment gives them
        torch = sys.modules.get("torch")  # only deep agents import it: trials run in parallel, one thread each
        if torch is not None:
            torch.set_num_threads(1)
        autoreset = AutoresetMode(getattr(self.agent, "autoreset", "NextStep"))
        self.env = make_vector(self.env_spec, getattr(self.agent.config, "num_envs", 1), autoreset)
        if self.player is not self.agent:
            self.env = EncodeVectorObservation(self.env, self.encoder)
        self.progress = Progress()
        self.figures: dict[str, float] = {}
        self.warnings: list[str] = []
        offset = self._resume()
        purge_step = self.progress.step + 1 if offset else 0
        self.logger = Logger(self.folder, offset=offset, purge_step=purge_step, within=own.folder)
        if offset == 0:
            self.logger.text("trial", f"```json\n{json.dumps(spec.to_json(), indent=1)}\n```")
            encoder = {"encoder": spec.encoder.label} if spec.encoder else {}
            names = {"agent": spec.agent.label, **encoder, "env": spec.env.label, "seed": spec.seed}
            self.logger.hparams(names | spec.agent.config)

    def _resume(self) -> int:
        loaded = load_latest(self.folder / "checkpoint", self.warnings.append)
        if loaded is None:
            return 0
        _, state = loaded
        self.agent.load_state_dict(state["agent"])
        if state["env"] is not None:
            restore(self.env, state["env"])
        self.progress = Progress(**state["progress"])
        count_from(self.env, self.progress.step)
        self.figures = state["figures"]
        return state["offset"]

    def log(self, row: dict[str, Any]) -> None:
        self.own.check()
        self.logger.scalars(self.progress.step, row)

    def save(self) -> None:
        previous, self.progress.saved = self.progress.saved, self.progress.step
        self.progress.stepped |= is_begun(self.env)
        state = {
            "agent": self.agent.state_dict(),
            "env": snapshot(self.env),
            "progress": vars(self.progress),
            "figures": self.figures,
            "offset": self.logger.offset(),
        }
        keep, best = self.spec.checkpoint.keep, self.progress.best_step
        within, folder = self.own.folder, self.folder / "checkpoint"
        save_checkpoint(folder, self.progress.step, state, keep=keep, best=best, within=within, previous=previous)

    def evaluate(self) -> dict[str, Any]:
        progress, spec = self.progress, self.spec
        progress.evaluated = progress.step
        # At the end agents play the same episodes: equal policies get equal figures, planners' too, who take no steps.
        last = spec.planner or progress.step >= spec.steps
        seed = derive(spec.seed, "evaluation", "final" if last else progress.step)
        self.figures = evaluate(self.player, self.env_spec, self.spaces, episodes=spec.evaluation.episodes, seed=seed)
        if progress.best_reward is None or self.figures["mean_reward"] > progress.best_reward:
            progress.best_step, progress.best_reward = progress.step, self.figures["mean_reward"]
        return {f"eval/{key}": value for key, value in self.figures.items()}

    def picture(self) -> dict[str, Any]:
        """Values and greedy policy of a grid-shaped environment; what an encoder makes of the frames that are seen."""
        if self.encoder is not None:
            from mpagents.encoder_pictures import reconstructions

            self.progress.pictured = self.progress.step
            return reconstructions(self.agent, self.env)
        if self.shape is None or self.spaces.mdp is None or getattr(self.agent, "recurrent", False):
            return {}  # a policy with memory is no table
        from mpagents.results.pictures import draw_grid
        from mpagents.tabular.policy_evaluation import evaluate_policy

        self.progress.pictured = self.progress.step
        policy = policy_table(self.agent, self.spaces.mdp)
        values = self.agent.state_values() if hasattr(self.agent, "state_values") else evaluate_policy(self.spaces.mdp, policy)
        return {"eval/values_and_policy": draw_grid(values, policy, self.shape, self.spaces.mdp)}

    def best(self) -> dict[str, Any]:
        """The best checkpoint's figures on seeds of its own."""
        step = self.progress.best_step
        if step != self.progress.step:
            try:
                self.agent.load_state_dict(load_checkpoint(self.folder / "checkpoint" / f"step={step}")["agent"])
            except DamagedCheckpoint as error:
                self.warnings.append(f"the best checkpoint is damaged, judging the last one: {error}")
                step = self.progress.step
        seed = derive(self.spec.seed, "best")
        episodes = self.spec.evaluation.episodes
        figures = evaluate(self.player, self.env_spec, self.spaces, episodes=episodes, seed=seed)
        return {"step": step, **figures, "episodes": episodes}

    def resume_grade(self) -> str:
        """What this trial continues from where it is interrupted: its very state, the next episode's start, or less."""
        grade = getattr(self.agent, "resume", "exact")
        return "episode-boundary" if grade == "exact" and self.progress.stepped and not is_exact(self.env) else grade

    def close(self) -> None:
        try:
            self.logger.close()
        finally:
            self.env.close()


def _train(spec: TrialSpec, root: Path, own: Attempt) -> Steps:
    run = _Run(spec, root, own)
    progress, total = run.progress, spec.steps
    start, first_step = time.perf_counter() - progress.seconds, progress.step
    try:
        for step, metrics in run.agent.train(run.env, total):
            progress.step = step
            progress.seconds = time.perf_counter() - start
            row = dict(metrics)
            if spec.planner:
                run.log(row)
                continue
            if progress.due(progress.evaluated, spec.evaluation.every, total):
                row |= run.evaluate()
                if progress.due(progress.pictured, -(-total // PICTURE_TIMES), total):
                    row |= run.picture()
            if len(row) > len(metrics) or progress.due(progress.logged, -(-total // LOGGED_POINTS), total):
                progress.logged = step
                row["time/fps"] = (step - first_step) / max(1e-9, time.perf_counter() - start)
                run.log(row)
            if progress.best_step == step or progress.due(progress.saved, spec.checkpoint.every, total):
                run.save()
            yield step, run.figures
        if progress.evaluated != progress.step or not run.figures:
            run.log(run.evaluate() | run.picture())
            run.save()
        final = {**run.figures, "episodes": spec.evaluation.episodes}
        seconds = time.perf_counter() - start
        figures = {"final": final, "best": run.best(), "resume": run.resume_grade()}
        warnings = {"warnings": run.warnings} if run.warnings else {}
        return {"steps": progress.step, "seconds": round(seconds, 3), **figures, **warnings}
    finally:
        run.close()
