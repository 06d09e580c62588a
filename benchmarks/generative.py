"""Speed of the generative models: `python benchmarks/generative.py [--only training|sampling|flows|diffusion]`.

`sampling`: an autoregressive model that keeps what it has computed against the same model computing everything anew for every
value, with equal samples. `training`: one step (loss, gradient, Adam) against the same network as a user would take it from a
public library: zuko's masked net, or torch's own modules; same sizes and batch, one thread, in turn in this process, so that
noise hits both alike; a figure is the median of the turns. `flows` and `diffusion`: both, beside normflows, zuko and diffusers
(`peers.py`).
"""

from __future__ import annotations

import argparse
import importlib
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import zuko
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional as F

import generative

Step = Callable[[], Tensor]  # the loss of one batch
BATCH, TURNS = 64, 15


def bits(*shape: int) -> Tensor:
    return torch.randint(2, shape, generator=torch.Generator().manual_seed(0)).float()


def ours(name: str, batch: dict[str, Tensor], **config: object) -> tuple[nn.Module, Step]:
    model = generative.build(name, **config)
    generator = torch.Generator().manual_seed(0)
    return model, lambda: model.loss(batch, generator=generator)[0]


def made() -> tuple[tuple[nn.Module, Step], tuple[nn.Module, Step]]:
    """64 bits, two hidden layers of 512; zuko's MaskedMLP."""
    x = bits(BATCH, 64)
    net = zuko.nn.MaskedMLP(torch.ones(64, 64).tril(-1).bool(), hidden_features=(512, 512))
    peer = net, lambda: F.binary_cross_entropy_with_logits(net(x), x, reduction="none").sum(1).mean()
    return ours("made", {"x": x}, dimensions=64, hidden_sizes=(512, 512)), peer


def lstm() -> tuple[tuple[nn.Module, Step], tuple[nn.Module, Step]]:
    """64 steps of a bit, 64 units; torch's LSTM and a linear layer."""
    x = bits(BATCH, 64, 1)
    net = nn.ModuleList([nn.LSTM(1, 64, batch_first=True), nn.Linear(64, 1)])

    def step() -> Tensor:
        hidden, _ = net[0](F.pad(x, (0, 0, 1, 0))[:, :-1])
        return F.binary_cross_entropy_with_logits(net[1](hidden), x, reduction="none").sum((1, 2)).mean()

    return ours("lstm", {"x": x}, hidden=64), (net, step)


def elman_rnn() -> tuple[tuple[nn.Module, Step], tuple[nn.Module, Step]]:
    """64 steps of a bit, 64 units; torch's RNN and a linear layer."""
    x = bits(BATCH, 64, 1)
    net = nn.ModuleList([nn.RNN(1, 64, batch_first=True), nn.Linear(64, 1)])

    def step() -> Tensor:
        hidden, _ = net[0](F.pad(x, (0, 0, 1, 0))[:, :-1])
        return F.binary_cross_entropy_with_logits(net[1](hidden), x, reduction="none").sum((1, 2)).mean()

    return ours("elman_rnn", {"x": x}, hidden=64), (net, step)


def transformer() -> tuple[tuple[nn.Module, Step], tuple[nn.Module, Step]]:
    """64 steps of a bit, two layers of width 64 with four heads; torch's TransformerEncoder with a causal mask."""
    x = bits(BATCH, 64, 1)
    layer = nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
    body = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(64), enable_nested_tensor=False)
    net = nn.ModuleList([nn.Linear(1, 64), nn.Embedding(64, 64), body, nn.Linear(64, 1)])
    mask, places = nn.Transformer.generate_square_subsequent_mask(64), torch.arange(64)

    def step() -> Tensor:
        tokens = net[0](F.pad(x, (0, 0, 1, 0))[:, :-1]) + net[1](places)
        logits = net[3](net[2](tokens, mask=mask, is_causal=True))
        return F.binary_cross_entropy_with_logits(logits, x, reduction="none").sum((1, 2)).mean()

    return ours("transformer", {"x": x}, width=64, context=64), (net, step)


def vae() -> tuple[tuple[nn.Module, Step], tuple[nn.Module, Step]]:
    """64 bits, 256 hidden units each way, 8 latents; torch's layers, as in its example."""
    x = bits(BATCH, 64)
    encoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 16))
    decoder = nn.Sequential(nn.Linear(8, 256), nn.ReLU(), nn.Linear(256, 64))

    def step() -> Tensor:
        mean, log_variance = encoder(x).chunk(2, 1)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        error = F.binary_cross_entropy_with_logits(decoder(z), x, reduction="none").sum(1)
        return (error - 0.5 * (1 + log_variance - mean**2 - log_variance.exp()).sum(1)).mean()

    return ours("vae", {"x": x}, shape=(64,), latent=8, head="bernoulli"), (nn.ModuleList([encoder, decoder]), step)


def classifier() -> tuple[tuple[nn.Module, Step], tuple[nn.Module, Step]]:
    """Ten classes of 64 numbers, two hidden layers of 256; torch's layers."""
    x, label = bits(BATCH, 64), torch.arange(BATCH) % 10
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    model = ours("mlp", {"x": x, "label": label}, in_features=64, out_features=10, hidden_sizes=(256, 256))
    return model, (net, lambda: F.cross_entropy(net(x), label))


TRAINED = [made, lstm, elman_rnn, transformer, vae, classifier]


def stepped(model: nn.Module, loss: Step) -> Callable[[], None]:
    """One training step."""
    optimiser = torch.optim.Adam(model.parameters(), fused=True)

    def step() -> None:
        optimiser.zero_grad()
        loss().backward()
        optimiser.step()

    return step


def microseconds(steps: list[Callable[[], Any]], times: int = 20, turns: int = TURNS) -> list[float]:
    """Median over turns of each one's mean over `times` calls, taken in turn."""
    found: list[list[float]] = [[] for _ in steps]
    for turn in range(turns + 1):
        for step, seconds in zip(steps, found):
            begun = time.perf_counter()
            for _ in range(times):
                step()
            if turn:  # the first one warms up
                seconds.append((time.perf_counter() - begun) / times)
    return [statistics.median(seconds) * 1e6 for seconds in found]


def training() -> Table:
    table = Table("model", "ours, µs a step", "peer, µs a step", "ours / peer", "target", "met", title="training step")
    for case in TRAINED:
        torch.manual_seed(0)
        own, peer = microseconds([stepped(*pair) for pair in case()])
        met = "yes" if own <= 1.2 * peer else "NO"
        table.add_row(f"{case.__name__}: {case.__doc__}", f"{own:,.0f}", f"{peer:,.0f}", f"{own / peer:.2f}", "≤ 1.2", met)
    return table


def sampling() -> Table:
    table = Table("model", "cached, s", "uncached, s", "ratio", "target", "met", title="sampling")
    for family in ("autoregressive", "pixels", "sequences"):
        for name, measure in importlib.import_module(f"benchmarks.sampling.{family}").CASES.items():
            cached, uncached = measure()
            ratio = uncached / cached
            judged = "× 32" in name or "×" not in name  # 1,024 values
            met = ("yes" if ratio >= 10 else "NO") if judged else ""
            table.add_row(name, f"{cached:.2f}", f"{uncached:.2f}", f"{ratio:.1f}", "≥ 10" if judged else "", met)
    return table


def flows() -> Table:
    return beside("FLOWS", "flows", times=20, turns=TURNS)


def diffusion() -> Table:
    return beside("DIFFUSION", "diffusion", times=1, turns=5)


def beside(rows: str, title: str, times: int, turns: int) -> Table:
    """Training step and 64 samples, beside a peer."""
    table = Table(
        "model", "step: ours, µs", "peer, µs", "ratio", "samples: ours, µs", "peer, µs", "ratio", "≤ 1.2", title=title
    )
    peers = importlib.import_module("benchmarks.peers")
    for row in getattr(peers, rows):
        torch.manual_seed(0)
        sides = row.sides()
        steps = microseconds([stepped(side.model, side.loss) for side in sides], times, turns)
        with torch.no_grad():
            draws = microseconds([side.sample for side in sides], max(1, times // 4), turns)
        cells, met = [], True
        for own, peer in (steps, draws):
            cells += [f"{own:,.0f}", f"{peer:,.0f}", f"{own / peer:.2f}"]
            met &= own <= 1.2 * peer
        table.add_row(row.name, *cells, "yes" if met else "NO")
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=["training", "sampling", "flows", "diffusion"])
    only = parser.parse_args().only
    torch.set_num_threads(1)
    console = Console(width=160)
    for section in (training, sampling, flows, diffusion):
        if only in (None, section.__name__):
            console.print(section())


if __name__ == "__main__":
    main()
