"""Probes: how well something true (an environment's state) can be read from codes, linearly and by a small network.

    R²_k = 1 − Σ_i (y_ik − ŷ_ik)² / Σ_i (y_ik − ȳ_k)²          of data that the probe wasn't fitted to

1 is perfect, 0 no better than the mean, which ȳ is of the fitted data. (Alain & Bengio 2016, arXiv:1610.01644.) A code that
keeps a quantity, but not linearly, has a low R² of the linear probe and a high one of the network.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

HIDDEN = 64  # units of each of the network's two layers
BATCH = 256


def standardised(x: Tensor, like: Tensor) -> Tensor:
    """x [N, D], as float64, in units where `like` [M, D] has mean 0 and deviation 1; constant columns become 0."""
    mean, std = like.double().mean(0), like.double().std(0, correction=0)
    varies = std > torch.clamp(1e-6 * mean.abs(), min=1e-8)  # more than float32 rounds
    return (x.double() - mean) / torch.where(varies, std, torch.inf)


def ridge(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """(weight [D, K], bias [K]) that minimise Σ (x w + b − y)² + penalty ‖w‖², in float64.

    >>> weight, bias = ridge(torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[1.0], [3.0], [5.0]]), 0.0)
    >>> round(weight.item(), 6), round(bias.item(), 6)
    (2.0, 1.0)
    """
    x, y = x.double(), y.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    gram = x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    weight = torch.linalg.lstsq(gram, x.T @ y).solution if penalty == 0 else torch.linalg.solve(gram, x.T @ y)
    return weight, y_mean - x_mean @ weight


def r_squared(predicted: Tensor, y: Tensor, mean: Tensor) -> Tensor:
    """[K] of predictions [N, K]; NaN for a y that doesn't vary."""
    error, spread = (y - predicted).square().sum(0), (y - mean).square().sum(0)
    return torch.where(spread > 0, 1 - error / spread, torch.nan)


def linear_probe(codes: Tensor, y: Tensor, test_codes: Tensor, test_y: Tensor, *, penalty: float = 1.0) -> Tensor:
    """R² [K] on the test data of ridge regression from codes [N, D] to y [N, K]; codes are standardised first."""
    weight, bias = ridge(standardised(codes, codes), y, penalty)
    predicted = standardised(test_codes, codes).double() @ weight + bias
    return r_squared(predicted, test_y.double(), y.double().mean(0))


def mlp_probe(
    codes: Tensor, y: Tensor, test_codes: Tensor, test_y: Tensor, *, steps: int = 2_000, learning_rate: float = 3e-3,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """R² [K] on the test data of a network with two hidden layers, trained by Adam on the squared error."""
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        layers = (nn.Linear(codes.shape[1], HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU())
        network = nn.Sequential(*layers, nn.Linear(HIDDEN, y.shape[1])).to(codes.device)
        x, target = standardised(codes, codes).float(), standardised(y, y).float()
        optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate, fused=True)
        course = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for _ in range(steps):
            rows = torch.randint(len(x), (BATCH,), generator=generator).to(x.device)
            loss = (network(x[rows]) - target[rows]).square().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            course.step()
    with torch.no_grad():
        predicted = network(standardised(test_codes, codes).float())
    return r_squared(predicted.double(), standardised(test_y, y).double(), torch.zeros(()))


def probe(codes: Tensor, y: Tensor, test_codes: Tensor, test_y: Tensor) -> dict[str, list[float]]:
    """{"linear": R² of each of the K quantities, "mlp": likewise}; fitted to codes [N, D] and y [N, K]."""
    data = codes, y, test_codes, test_y
    return {"linear": linear_probe(*data).tolist(), "mlp": mlp_probe(*data).tolist()}
