"""The recurrent latent variable models against the Kalman filter's likelihood of a linear dynamical system."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

import generative
from benchmarks.known_optima import Row
from generative.model import Batch

CONTROLS = ((0.5,), (-1.0,))
NUM_TESTED = {"elbo": 20_000, "importance weighted": 4_000}  # sequences, for each bound
CHOW_LIU = 20.55  # nats, of the best tree on binarised digits
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


@dataclass(frozen=True)
class DigitRows:
    """Binarised digits as sequences of their eight rows, [B, 8, 8]."""

    part: str = "train"

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        return {"x": generative.source("digits", part=self.part).sample(n, generator)["x"].reshape(n, 8, 8)}


def digits() -> tuple[str, str, bool]:
    """Test nats by the importance-weighted bound of 100 samples; the weights of the lowest validation loss."""
    torch.manual_seed(0)
    model = generative.build("vrnn", in_features=8, latent=8, hidden=128, hidden_sizes=(128,), head="bernoulli", num_steps=8)
    settings = {"steps": 3_000, "batch_size": 64, "learning_rate": 1e-3, "warm_up": 50, "ema": 0.99, "max_grad_norm": 1.0}
    for _ in generative.fit(model, DigitRows(), **settings, device="cpu"):
        pass
    test = generative.source("digits", part="test").everything["x"].reshape(-1, 8, 8)
    with torch.no_grad():
        nats = -weighted(model, test, None).mean().item()
    return f"{nats:.2f}", f"{nats - CHOW_LIU:.2f} to the tree", nats < CHOW_LIU


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
] + [
    Row(
        "vrnn", "digits, binarised, row by row (bound of 100 samples)", "unknown (Chow–Liu 20.55)", "< 20.55 nats, test", digits
    )
]
