"""Sequence models against the noise of their source, the adding problem, and images read pixel by pixel."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

import generative
from benchmarks.known_optima import Row
from generative.sources import binary_states, source
from generative.synthetic import AddingProblem, DelayedXor, Ising

XOR = DelayedXor(delay=8, num_steps=64, flip=0.1)
ADDING = AddingProblem(num_steps=100)


def trained(name: str, data: Any, config: dict[str, Any], **settings: Any) -> generative.GenerativeModel:
    """A model fitted from scratch on one core, left in evaluation mode."""
    torch.manual_seed(0)
    model = generative.build(name, **config)
    for _ in generative.fit(model, data, **{"max_grad_norm": 1.0, "validation": 0.0, "device": "cpu", **settings}):
        pass
    return model


class Restarted:
    """A source whose sequences are cut into episodes of `span` steps: the model is told to forget at each."""

    def __init__(self, data: Any, span: int) -> None:
        self.data, self.span = data, span

    def sample(self, n: int, generator: torch.Generator) -> dict[str, Tensor]:
        batch = self.data.sample(n, generator)
        return {**batch, "first": (torch.arange(batch["x"].shape[1]) % self.span == 0).repeat(n, 1)}


@torch.no_grad()
def expected_nats(model: Any, data: Any, n: int = 2_000) -> float:
    """Mean of −Σ_b p(b) ln q(b) over scored steps of delayed XOR: as −ln q(x_t), without the noise of drawing x_t."""
    batch = data.sample(n, torch.Generator().manual_seed(1))
    x, delay, flip = batch["x"], XOR.delay, XOR.flip
    parameters = model.readout(model.features(x[:, :-1], batch.get("first")))[:, delay:]
    copied = (x[:, delay - 1 : -1] != x[:, :-delay]).to(x.dtype)
    nats = [-model.data.log_prob(parameters, bit) for bit in (copied, 1 - copied)]
    return float(((1 - flip) * nats[0] + flip * nats[1]).mean())


def delayed_xor(name: str, config: dict[str, Any], short: dict[str, Any], **settings: Any) -> tuple[str, str, bool]:
    """The model, and the same with too short a memory: `short` are its settings, or the `span` between its restarts."""
    reached = expected_nats(trained(name, XOR, config, batch_size=64, **settings), XOR)
    data: Any = Restarted(XOR, short["span"]) if "span" in short else XOR
    blind = trained(name, data, config if "span" in short else {**config, **short}, batch_size=64, **settings)
    forgetful = expected_nats(blind, data)
    met = reached <= 0.33 and forgetful >= 0.692
    return f"{reached:.4f}; {forgetful:.4f}", f"{reached - XOR.step_entropy:.4f}", met


def adding(name: str, config: dict[str, Any], **settings: Any) -> float:
    """Mean squared error on 4,000 new sequences."""
    task = {"size": 2, "num_steps": 100, "target": "label", "head": "gaussian", "scale": 1.0}
    model: Any = trained(name, ADDING, {**task, **config}, batch_size=64, max_grad_norm=0.3, **settings)
    batch = ADDING.sample(4_000, torch.Generator().manual_seed(1))
    with torch.no_grad():
        return float((model.predict(batch["x"]) - batch["label"]).square().mean())


def adding_lstm() -> tuple[str, str, bool]:
    error = adding("lstm", {"hidden": 48, "span": 100}, steps=1_100, learning_rate=1.5e-2)
    return f"{error:.5f}", f"{error:.5f}", error <= 0.002


def adding_elman() -> tuple[str, str, bool]:
    error = adding("elman_rnn", {"hidden": 48}, steps=1_000, learning_rate=3e-3)
    return f"{error:.4f}", f"{error:.4f}", error >= 0.15


def ising() -> tuple[str, str, bool]:
    """Exact divergence over all 65,536 states."""
    data, states = Ising(), binary_states(16).float()
    model: Any = trained(
        "transformer", data, {"vectors": True, "num_steps": 16, "width": 32, "num_layers": 2, "context": 16},
        steps=900, batch_size=256, learning_rate=4e-3, warm_up=50, ema=0.995,
    )  # fmt: skip
    with torch.no_grad():
        log_prob = torch.cat([model.log_prob(part) for part in states.split(8_192)]).double()
    exact = data.log_prob(states)
    divergence = (exact.exp() * (exact - log_prob)).sum().item()
    total = log_prob.exp().sum().item()
    met = divergence <= 0.02 and abs(total - 1) < 1e-5
    return f"{data.entropy + divergence:.4f} (Σp = {total:.6f})", f"{divergence:.4f}", met


def digits(name: str, config: dict[str, Any], **settings: Any) -> tuple[str, str, bool]:
    """Test nats of binarised digits read pixel by pixel; the weights of the lowest validation loss."""
    training = {"steps": 1_500, "batch_size": 64, "warm_up": 100, "ema": 0.99, "validation": 0.1, "validate_every": 100}
    model: Any = trained(name, source("digits"), {"vectors": True, "num_steps": 64, **config}, **training | settings)
    with torch.no_grad():
        nats = -model.log_prob(source("digits", part="test").everything["x"]).mean().item()
    return f"{nats:.2f}", f"{nats - CHOW_LIU:.2f} to the tree", nats < CHOW_LIU


STEP = "0.32508 nats/step; ln 2 with a memory below 8"
TOLD = "≤ 0.33; ≥ 0.692 with"
ELMAN = partial(delayed_xor, "elman_rnn", {"hidden": 64}, {"span": 8}, steps=500, learning_rate=3e-3)
RECURRENT = partial(delayed_xor, "lstm", {"hidden": 64}, {"span": 8}, steps=900, learning_rate=5e-3)
CONVOLUTIONS = partial(
    delayed_xor, "wavenet", {"channels": 32, "skip": 32, "dilations": (1, 2, 4)}, {"dilations": (1, 2, 3)},
    steps=250, learning_rate=5e-3,
)  # fmt: skip
ATTENTION = partial(
    delayed_xor, "transformer", {"width": 32, "context": 64}, {"context": 4}, steps=500, learning_rate=4e-3, warm_up=50
)

CHOW_LIU = 20.55  # nats, of the best tree
DIGITS = {
    "Transformer": partial(digits, "transformer", {"width": 64, "context": 64, "dropout": 0.2}, learning_rate=2e-3),
    "LSTM": partial(digits, "lstm", {"hidden": 128}, learning_rate=3e-3, max_grad_norm=1.0),
    "Elman RNN": partial(digits, "elman_rnn", {"hidden": 128}, learning_rate=1e-3, max_grad_norm=1.0),
    "WaveNet": partial(digits, "wavenet", {"channels": 32, "skip": 64, "dilations": (1, 2, 4, 8, 16, 32)}, learning_rate=2e-3),
}

ROWS = [
    Row("Elman RNN", "delayed XOR, k = 8", STEP, f"{TOLD} restarts every 8 steps", ELMAN),
    Row("LSTM", "delayed XOR, k = 8", STEP, f"{TOLD} restarts every 8 steps", RECURRENT),
    Row("WaveNet", "delayed XOR, k = 8", STEP, f"{TOLD} a field of 7 steps", CONVOLUTIONS),
    Row("Transformer", "delayed XOR, k = 8", STEP, f"{TOLD} a field of 7 steps", ATTENTION),
    Row("LSTM", "adding problem, T = 100", "MSE 0; the mean's 0.167", "≤ 0.002", adding_lstm),
    Row("Elman RNN", "adding problem, T = 100", "MSE 0; the mean's 0.167", "≥ 0.15, it fails", adding_elman),
    Row("Transformer", "Ising 4 × 4", "8.66343 nats", "KL ≤ 0.02, Σp = 1 ± 1e-5", ising),
    *(
        Row(model, "digits, binarised", "unknown; factorised 25.22, tree 20.55", "< 20.55 nats, test", measure)
        for model, measure in DIGITS.items()
    ),
]
