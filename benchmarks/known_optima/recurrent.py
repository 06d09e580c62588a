"""The recurrent latent variable models against the Kalman filter's likelihood of a linear dynamical system."""

from __future__ import annotations

from collections.abc import Callable

import torch

import generative
from benchmarks.known_optima import Row

CONTROLS = ((0.5,), (-1.0,))
NUM_TESTED = {"elbo": 20_000, "importance weighted": 4_000}  # sequences, for each bound
TARGETS = {"elbo": 0.01, "importance weighted": 0.001}  # nats a step below the exact likelihood, at most


def trained(src) -> generative.GenerativeModel:
    torch.manual_seed(0)
    config = {"in_features": 1, "hidden": 32, "hidden_sizes": (32,)}
    if src.controls is None:
        model = generative.build("vrnn", **config)
    else:
        model = generative.build("conditional_vrnn", condition="action", condition_size=1, **config)
    settings = {"steps": 2_000, "learning_rate": 5e-3, "warm_up": 50, "max_grad_norm": 1.0, "validation": 0}
    for _ in generative.fit(model, src, **settings, device="cpu"):
        pass
    return model


def gap(bound: str, controls) -> Callable[[], tuple[str, str, bool]]:
    """Exact minus bound on the same sequences, so that their own spread cancels; nats a step with its standard error."""

    def measure() -> tuple[str, str, bool]:
        src = generative.source("linear_dynamical_system", controls=controls)
        model, test = trained(src), src.sample(NUM_TESTED[bound], torch.Generator().manual_seed(1))
        x, action = test["x"], test.get("action")
        with torch.no_grad():
            found = model.elbo(x, action) if bound == "elbo" else weighted(model, x, action)
        exact = src.log_prob(x, action) / src.num_steps
        below = exact - found.double() / src.num_steps
        mean, error = below.mean().item(), below.std().item() / len(x) ** 0.5
        reached = f"{(exact - below).mean().item():.5f}"
        return reached, f"{mean:.5f} ± {error:.5f}", -3 * error <= mean <= TARGETS[bound]

    return measure


def weighted(model, x: torch.Tensor, action: torch.Tensor | None, rows: int = 500) -> torch.Tensor:
    """The importance-weighted bound with 100 samples, `rows` sequences at a time."""
    actions = [None] * len(x) if action is None else action.split(rows)
    noise = torch.Generator().manual_seed(2)
    return torch.cat([model.iwae(part, 100, noise, given) for part, given in zip(x.split(rows), actions)])


def optimum(controls) -> str:
    src = generative.source("linear_dynamical_system", controls=controls)
    return f"{-src.entropy / src.num_steps:.5f} nats/step"


ROWS = [
    Row(
        name,
        f"linear dynamical system{' with controls' if controls else ''}, {bound}",
        optimum(controls),
        f"≤ {TARGETS[bound]} below, never above",
        gap(bound, controls),
    )
    for name, controls in (("vrnn", None), ("conditional_vrnn", CONTROLS))
    for bound in TARGETS
]
