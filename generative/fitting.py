"""Training: each player of a model minimises its loss by its own optimiser, on minibatches of a source.

    for step, metrics in generative.fit(model, "recordings/pong", steps=10_000, ema=0.999):
        print(step, metrics["loss"])

A step is one turn of the model's `schedule`: a fresh minibatch and one update for each of a player's updates. The learning
rate rises linearly over `warm_up` steps and falls by a half cosine to 0 (Loshchilov & Hutter 2017, arXiv:1608.03983). With
`ema` the weights that are judged, shown and left at the end are averages θ̄ ← d θ̄ + (1 − d) θ, with d at most
(1 + t)/(10 + t) while there is little to average; buffers are not averaged. `weight_decay` with adam is added to the gradient
of the mean loss (a Gaussian prior over the weights, notes §1.2); with adamw it is decoupled.

`Fit` is the same with its progress at hand: `state_dict()` between two yields, loaded into a new one, continues to the bit.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from generative import configured
from generative.averaging import Average
from generative.compiling import compiled
from generative.data import as_source
from generative.fit_settings import FitConfig, learning_rate, optimiser, to_compile
from generative.model import Batch, GenerativeModel, Metrics, capabilities
from generative.pictures import pictures


def fit(model: GenerativeModel, source: Any, **settings: Any) -> Iterator[tuple[int, Metrics]]:
    """Train `model` on `source`, yielding (step, metrics) every `log_every` steps; settings are those of `FitConfig`.

    Metrics: each loss in nats, averaged since the last yield (`loss`, or `critic/loss` with several players) and what the
    model adds; of held-out data `validation/loss`, what the model adds, and `validation/bits_per_dim` where it has a
    likelihood; `learning_rate`, `grad_norm`, `steps_per_second`; pictures (uint8 [H, W, C]) at their interval.

    Raises ValueError for unknown settings and data that the model refuses, and
    FloatingPointError where a loss is no longer finite: the model then has the last weights known to be good.
    """
    yield from Fit(model, source, **settings)


class Fit:
    """A training in progress: iterate it."""

    def __init__(self, model: GenerativeModel, source: Any, **settings: Any) -> None:
        self.config = config = configured(FitConfig, settings, "fit")
        found = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(found if config.device == "auto" else config.device)
        self.model = model.to(self.device)
        self.source: Any = as_source(source)
        self.held_out: Any = self.source
        if config.validation and hasattr(self.source, "split"):
            self.source, self.held_out = self.source.split(config.validation, config.seed)
        self.optimisers = {player: optimiser(config, model.parameters_of(player)) for player, _ in model.schedule}
        self.average = Average(model, config.ema) if config.ema else None
        self.generator = torch.Generator(self.device).manual_seed(config.seed)
        self.step = 0
        self.best: tuple[float, dict[str, Tensor]] | None = None  # (validation loss, weights)
        self.since_best = 0  # validations
        self.good = self.probed = (0, self._copied())  # (step, weights) that gave finite losses; those to be known next
        self.loss = compiled(model.loss) if to_compile(config) else model.loss

    def state_dict(self) -> dict[str, Any]:
        """All progress, as nested dicts of tensors and numbers; a source with a state of its own is part of it."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "optimisers": {
                player: {str(place): state for place, state in made.state_dict()["state"].items()}
                for player, made in self.optimisers.items()
            },
            "average": self.average.state() if self.average else [],
            "generator": self.generator.get_state(),
            "best": {"loss": self.best[0], "weights": self.best[1]} if self.best else None,
            "since_best": self.since_best,
            "source": self.source.state_dict() if hasattr(self.source, "state_dict") else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state` was taken, with the same model class, source and settings."""
        self.step, self.since_best = state["step"], state["since_best"]
        self.model.load_state_dict(state["model"])
        for player, made in self.optimisers.items():
            states = {int(place): of_one for place, of_one in state["optimisers"][player].items()}
            made.load_state_dict({"state": states, "param_groups": made.state_dict()["param_groups"]})
        if self.average:
            self.average.load(state["average"])
        self.generator.set_state(state["generator"])
        best = state["best"]
        self.best = (best["loss"], {key: value.to(self.device) for key, value in best["weights"].items()}) if best else None
        if state["source"] is not None:
            self.source.load_state_dict(state["source"])
        self.good = self.probed = (self.step, self._copied())

    def __iter__(self) -> Iterator[tuple[int, Metrics]]:
        config = self.config
        validate_every = config.validate_every or max(1, config.steps // 10)
        logged: list[Metrics] = []
        begun, begun_at = time.perf_counter(), self.step
        self.model.train()
        while not self.finished:
            logged.append(self._update())
            self.step += 1
            last = self.step == config.steps
            metrics: dict[str, Any] = {}
            if config.validation and (self.step % validate_every == 0 or last):
                metrics |= self._validate()
            if config.pictures_every and (self.step % config.pictures_every == 0 or last):
                metrics |= self._pictures()
            if metrics or self.step % config.log_every == 0 or last:
                rate = (self.step - begun_at) / (time.perf_counter() - begun)
                means = self._means(logged)
                self.good, self.probed = self.probed, (self.step, self._copied())
                yield self.step, {**means, **metrics, "steps_per_second": rate}
                logged, begun, begun_at = [], time.perf_counter(), self.step
        self._settle()

    @property
    def finished(self) -> bool:
        """Whether all steps are done, or `patience` is at its end."""
        patience = self.config.patience
        return self.step >= self.config.steps or (patience is not None and self.since_best >= patience)

    def _update(self) -> Metrics:
        """One turn of the schedule."""
        config, metrics = self.config, dict[str, Any]()
        rate = learning_rate(config, self.step)
        for player, updates in self.model.schedule:
            made = self.optimisers[player]
            parameters = made.param_groups[0]["params"]
            made.param_groups[0]["lr"] = rate
            for _ in range(updates):
                batch = self.source.sample(config.batch_size, self.generator)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=config.autocast):
                    loss, told = self.loss(batch, player, generator=self.generator)
                told = {key: value.clone() if isinstance(value, Tensor) else value for key, value in told.items()}
                made.zero_grad()
                loss.backward()
                norm = nn.utils.clip_grad_norm_(parameters, config.max_grad_norm or math.inf)
                made.step()
                self.model.after_update(player)
            prefix = "" if player == "model" else f"{player}/"
            metrics |= {f"{prefix}{key}": value for key, value in {"loss": loss.detach(), "grad_norm": norm, **told}.items()}
        if self.average:
            self.average.update()
        return metrics

    def _means(self, logged: list[Metrics]) -> dict[str, Any]:
        """Of the scalars since the last yield; the last of anything else. Raises FloatingPointError at a lost loss."""
        means = {key: mean([metrics[key] for metrics in logged]) for key in logged[-1]}
        watched = [key for key in means if key.endswith(("loss", "grad_norm"))]
        lost = [key for key in watched if not math.isfinite(means[key])]
        if lost:
            sound = all(math.isfinite(float(logged[0][key])) for key in lost)  # the first judges the weights before it
            step, weights = self.probed if sound else self.good
            self.model.load_state_dict(weights)
            self.model.eval()
            raise FloatingPointError(
                f"{lost[0]} is {means[lost[0]]} by step {self.step}: lower learning_rate, or set max_grad_norm or warm_up "
                f"(the model has its last good weights, of step {step})"
            )
        return {**means, "learning_rate": learning_rate(self.config, self.step - 1)}

    def _validate(self) -> dict[str, Any]:
        """Loss on held-out data with noise of its own, the same each time."""
        if len(self.model.schedule) > 1:
            return {}  # what players minimise against each other says little of the model
        noise = torch.Generator(self.device).manual_seed(self.config.seed + 1)
        batch = self._validation_batch(self.config.validation_size, noise)
        self.since_best += 1
        with self.as_used(), torch.no_grad():
            found, told = self.model.loss(batch, generator=noise)
            loss = float(found)
            if self.best is None or loss < self.best[0]:
                self.best, self.since_best = (loss, self._copied()), 0
            figures = {f"validation/{key}": float(value) for key, value in told.items() if not isinstance(value, np.ndarray)}
            return {"validation/loss": loss, **figures, **bits_per_dim(self.model, batch)}

    def _validation_batch(self, n: int, generator: torch.Generator) -> Batch:
        """Up to n held-out data, each once where they are finite."""
        if hasattr(self.held_out, "at"):
            places = torch.randperm(len(self.held_out), generator=generator, device=self.device)[:n]
            return self.held_out.at(places, self.device)
        return self.held_out.sample(n, generator)

    def _pictures(self) -> dict[str, Any]:
        noise = torch.Generator(self.device).manual_seed(self.config.seed + 2)
        with self.as_used(), torch.no_grad():
            return pictures(self.model, self._validation_batch(64, noise), noise)

    @contextlib.contextmanager
    def as_used(self, keep: Literal["best", "last"] = "last") -> Iterator[None]:
        """Within it the model is in evaluation mode with the weights it is to be used with.

        best: of the lowest validation loss so far, if there is one; else the present ones, averaged where there is an average.
        """
        with contextlib.ExitStack() as undone:
            undone.callback(self.model.train)
            if keep == "best" and self.best is not None:
                undone.callback(self.model.load_state_dict, self._copied())
                self.model.load_state_dict(self.best[1])
            elif self.average:
                undone.enter_context(self.average.applied())
            self.model.eval()
            yield

    def _settle(self) -> None:
        """Leave the weights that `keep` asks for, in evaluation mode."""
        if self.config.keep == "best" and self.best is not None:
            self.model.load_state_dict(self.best[1])
        elif self.average:
            self.average.assign()
        self.model.eval()

    def _copied(self) -> dict[str, Tensor]:
        return {key: value.clone() for key, value in self.model.state_dict().items()}


def bits_per_dim(model: Any, batch: Batch) -> dict[str, float]:
    """−log p(x), or its bound, in bits a dimension: of models with a likelihood, where every entry is scored."""
    has = capabilities(model)
    if "mask" in batch or not has & {"log_prob", "elbo"}:
        return {}
    cond = (batch[model.conditioned_on],) if model.conditioned_on else ()
    nats = -(model.log_prob if "log_prob" in has else model.elbo)(batch["x"], *cond).mean()
    return {"validation/bits_per_dim": float(nats) / (math.log(2) * batch["x"][0].numel())}


def mean(values: list[Any]) -> Any:
    """Of scalars; the last one of pictures."""
    if isinstance(values[-1], np.ndarray):
        return values[-1]
    return torch.stack([torch.as_tensor(value) for value in values]).float().mean().item()
