"""Densities known in closed form: Gaussian mixtures, a banana, a correlated Gaussian and a linear dynamical system.

Sums are taken in float64. Samples are float32: vectors x [B, D], sequences x [B, T, O].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from generative.model import Batch

Vector = tuple[float, ...]
Matrix = tuple[Vector, ...]


def gaussian_entropy(covariance: Tensor) -> float:
    """½ ln det(2πe Σ) of Σ [D, D]; nats."""
    return 0.5 * torch.logdet(2 * math.pi * math.e * covariance).item()


def normal(n: int, size: int, generator: torch.Generator) -> Tensor:
    return torch.randn(n, size, generator=generator, device=generator.device, dtype=torch.float64)


def matrix(rows: Matrix) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@dataclass(frozen=True)
class GaussianMixture:
    """p(x) = Σ_k w_k N(x; m_k, s_k² I) in any dimension; x [B, D], label [B] is the component k.

    Scaled by c and with noise of variance v it stays a mixture, of means c m_k and variances c² s_k² + v: so `log_prob` and
    `score` take `scale` c and `variance` v (numbers, or [B, 1], one for each x). c = 1, v = σ² is the smoothed density of
    a denoising autoencoder (Alain & Bengio 2014, arXiv:1211.4246); c = √ᾱ, v = 1 − ᾱ is a diffusion's (Ho et al. 2020,
    arXiv:2006.11239). The entropy has no closed form.
    """

    weights: Vector = (0.5, 0.3, 0.2)
    means: Matrix = ((-2.0, 0.0), (1.5, 1.5), (1.0, -2.0))  # m_k, one row a component
    stds: Vector = (0.5, 0.7, 0.4)  # s_k

    def __post_init__(self) -> None:
        sizes = len(self.weights), len(self.means), len(self.stds)
        if len(set(sizes)) != 1 or len({len(mean) for mean in self.means}) != 1:
            raise ValueError(f"weights, means and stds should be as many, and means of one length, got {sizes} of them")
        if min(self.weights) < 0 or abs(sum(self.weights) - 1) > 1e-6 or min(self.stds) <= 0:
            raise ValueError(f"weights should sum to 1 and stds be above 0, got weights {self.weights}, stds {self.stds}")

    def component(self, label: int) -> GaussianMixture:
        """p(x | label): what guidance at w = 1 should sample."""
        return GaussianMixture((1.0,), (self.means[label],), (self.stds[label],))

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        device = generator.device
        weights = torch.tensor(self.weights, dtype=torch.float64, device=device)
        label = torch.multinomial(weights, n, replacement=True, generator=generator)
        std = torch.tensor(self.stds, dtype=torch.float64, device=device)[label, None]  # [B, 1]
        x = matrix(self.means).to(device)[label] + std * normal(n, len(self.means[0]), generator)
        return {"x": x.float(), "label": label}

    def joint_log_prob(self, x: Tensor, scale: float | Tensor = 1.0, variance: float | Tensor = 0.0) -> tuple[Tensor, Tensor]:
        """ln w_k N(x; c m_k, c² s_k² + v) -> [B, K]; and each component's score [B, K, D]."""
        x, mean = x.double(), matrix(self.means).to(x.device)  # [B, D], [K, D]
        weight = torch.tensor(self.weights, dtype=torch.float64, device=x.device)
        scale, variance = (torch.as_tensor(number, dtype=torch.float64, device=x.device) for number in (scale, variance))
        spread = scale**2 * torch.tensor(self.stds, dtype=torch.float64, device=x.device) ** 2 + variance  # [K] or [B, K]
        from_mean = scale[..., None] * mean - x[:, None]  # [B, K, D]
        log_normaliser = 0.5 * x.shape[1] * (2 * math.pi * spread).log()
        return weight.log() - 0.5 * from_mean.square().sum(2) / spread - log_normaliser, from_mean / spread[..., None]

    def log_prob(self, x: Tensor, scale: float | Tensor = 1.0, variance: float | Tensor = 0.0) -> Tensor:
        return self.joint_log_prob(x, scale, variance)[0].logsumexp(1)

    def score(self, x: Tensor, scale: float | Tensor = 1.0, variance: float | Tensor = 0.0) -> Tensor:
        """∇ ln p(x) [B, D]: the mean of the components' scores under p(k | x); float64."""
        joint, scores = self.joint_log_prob(x, scale, variance)
        return (joint.softmax(1)[..., None] * scores).sum(1)

    def optimal_noise(self, x_t: Tensor, alpha_bar: float | Tensor) -> Tensor:
        """ε*(x_t, t) = E[ε | x_t = √ᾱ x_0 + √(1−ᾱ) ε] = −√(1−ᾱ) ∇ ln p_t(x_t) [B, D], ᾱ a number or [B]; Vincent 2011."""
        alpha_bar = torch.as_tensor(alpha_bar, dtype=torch.float64, device=x_t.device).reshape(-1, 1)
        return -(1 - alpha_bar).sqrt() * self.score(x_t, alpha_bar.sqrt(), 1 - alpha_bar)


@dataclass(frozen=True)
class Ring:
    """Equal Gaussians evenly on a circle in the plane, the first at angle 0; x [B, 2], label [B]. All else is in `mixture`."""

    num_modes: int = 8
    radius: float = 2.0
    std: float = 0.5

    @cached_property
    def mixture(self) -> GaussianMixture:
        angles = [2 * math.pi * mode / self.num_modes for mode in range(self.num_modes)]
        means = tuple((self.radius * math.cos(angle), self.radius * math.sin(angle)) for angle in angles)
        return GaussianMixture((1 / self.num_modes,) * self.num_modes, means, (self.std,) * self.num_modes)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        return self.mixture.sample(n, generator)

    def log_prob(self, x: Tensor) -> Tensor:
        return self.mixture.log_prob(x)


@dataclass(frozen=True)
class Banana:
    """x_1 ~ N(0, s²), x_2 = b (x_1² − s²) + N(0, w²); x [B, 2] (Haario et al. 1999). Bending keeps areas, hence the entropy."""

    std: float = 1.0  # s
    bend: float = 0.5  # b
    width: float = 0.5  # w

    @property
    def entropy(self) -> float:
        return math.log(2 * math.pi * math.e * self.std * self.width)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        first, second = (normal(n, 2, generator) * torch.tensor([self.std, self.width], device=generator.device)).unbind(1)
        return {"x": torch.stack([first, second + self.bend * (first**2 - self.std**2)], 1).float()}

    def log_prob(self, x: Tensor) -> Tensor:
        first, second = x.double().unbind(1)
        straight = (second - self.bend * (first**2 - self.std**2)) / self.width
        return -0.5 * ((first / self.std) ** 2 + straight**2) - math.log(2 * math.pi * self.std * self.width)


@dataclass(frozen=True)
class CorrelatedGaussian:
    """N(0, U diag(λ) Uᵀ) with eigenvalues λ and a random rotation U; x [B, D]. `distortion_at_rate` gives its D(R)."""

    variances: Vector = (4.0, 2.0, 1.0, 0.5, 0.25, 0.125)  # λ
    rotation: int = 0  # seed of U

    def __post_init__(self) -> None:
        if not self.variances or min(self.variances) <= 0:
            raise ValueError(f"variances should be above 0, got {self.variances}")

    @cached_property
    def axes(self) -> Tensor:
        """U, float64 [D, D]: column i is the principal axis with variance λ_i."""
        return torch.linalg.qr(normal(len(self.variances), len(self.variances), torch.Generator().manual_seed(self.rotation))).Q

    @cached_property
    def covariance(self) -> Tensor:
        return self.axes * torch.tensor(self.variances, dtype=torch.float64) @ self.axes.T

    @property
    def entropy(self) -> float:
        return gaussian_entropy(self.covariance)

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        std = torch.tensor(self.variances, dtype=torch.float64, device=generator.device).sqrt()
        return {"x": (normal(n, len(std), generator) * std @ self.axes.T.to(generator.device)).float()}

    def log_prob(self, x: Tensor) -> Tensor:
        return MultivariateNormal(torch.zeros_like(x).double(), self.covariance.to(x.device)).log_prob(x.double())

    def pca_error(self, rank: int) -> float:
        """Least mean of ‖x − x̂‖² through a linear bottleneck of `rank`: the trailing eigenvalues' sum (Eckart & Young 1936)."""
        return sum(sorted(self.variances, reverse=True)[rank:])

    def ppca_nats(self, rank: int) -> float:
        """Least mean −ln p(x) of N(0, W Wᵀ + σ² I), W of `rank` < D: a linear VAE's optimum (Tipping & Bishop 1999, eq. 8).

        W spans the leading axes, σ² is the mean of the other eigenvalues, and then tr((W Wᵀ + σ² I)⁻¹ Σ) = D.
        """
        size = len(self.variances)
        if not 0 <= rank < size:
            raise ValueError(f"rank should be from 0 to {size - 1}, got {rank}")
        leading = sorted(self.variances, reverse=True)[:rank]
        log_det = sum(map(math.log, leading)) + (size - rank) * math.log(self.pca_error(rank) / (size - rank))
        return 0.5 * (size * math.log(2 * math.pi) + log_det + size)


@dataclass(frozen=True)
class LinearDynamicalSystem:
    """z_1 ~ N(0, P); x_t = C z_t + N(0, r² I); z_{t+1} = A z_t + B action_t + N(0, q² I). x [B, T, O], action [B, T, U].

    Actions are independent N(0, 1); action_t is taken upon x_t, so it first shows in x_{t+1}. `log_prob` is by the Kalman
    filter (Särkkä 2013, §4.3). Its covariances don't depend on the data, so the entropy of a sequence given the
    actions is Σ_t ½ ln det(2πe S_t), S_t the covariance of x_t given x_{<t}.
    """

    transition: Matrix = ((0.9, 0.3), (-0.3, 0.9))  # A [S, S]
    emission: Matrix = ((1.0, 0.0),)  # C [O, S]
    controls: Matrix | None = None  # B [S, U]; None: no actions
    initial_std: float = 1.0  # P = initial_std² I
    state_std: float = 0.3  # q
    emission_std: float = 0.3  # r
    num_steps: int = 20  # T

    def __post_init__(self) -> None:
        sizes = [len(row) for row in (*self.transition, *self.emission)] + [len(self.controls or self.transition)]
        if set(sizes) != {len(self.transition)}:
            raise ValueError(f"transition [S, S], emission [O, S] and controls [S, U] should agree on S, got lengths {sizes}")
        if self.num_steps < 1 or min(self.initial_std, self.state_std, self.emission_std) <= 0:
            raise ValueError(f"num_steps should be 1 or more, and the standard deviations above 0, got {self}")

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        transition, emission, controls = self._matrices(generator.device)
        state, seen, actions = self.initial_std * normal(n, len(transition), generator), [], []
        for _ in range(self.num_steps):
            seen.append(state @ emission.T + self.emission_std * normal(n, len(emission), generator))
            actions.append(normal(n, controls.shape[1], generator).float())
            state = state @ transition.T + actions[-1].double() @ controls.T
            state = state + self.state_std * normal(n, len(transition), generator)
        batch = {"x": torch.stack(seen, 1).float()}
        return batch if self.controls is None else batch | {"action": torch.stack(actions, 1)}

    def log_prob(self, x: Tensor, action: Tensor | None = None) -> Tensor:
        """ln p(x | action) [B] of x [B, T, O]; nats a sequence. Raises ValueError where the actions are missing."""
        if (action is None) != (self.controls is None):
            raise ValueError(f"log_prob takes actions exactly where there are controls, got {action=}, {self.controls=}")
        action = x.new_zeros(*x.shape[:2], 0) if action is None else action  # [B, T, U]
        transition, emission, controls = self._matrices(x.device)
        mean, total = x.new_zeros(len(x), len(transition)).double(), x.new_zeros(len(x)).double()  # of z_t given x_{<t}
        for t, (covariance, gain) in enumerate(self._filter(x.shape[1])):
            innovation = x[:, t].double() - mean @ emission.T  # [B, O]
            total += MultivariateNormal(torch.zeros_like(innovation), covariance.to(x.device)).log_prob(innovation)
            mean = (mean + innovation @ gain.T.to(x.device)) @ transition.T + action[:, t].double() @ controls.T
        return total

    @property
    def entropy(self) -> float:
        return sum(gaussian_entropy(covariance) for covariance, _ in self._filter(self.num_steps))

    def _matrices(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """A [S, S], C [O, S] and B [S, U]; B is [S, 0] without controls."""
        controls = matrix(self.controls) if self.controls is not None else torch.zeros(len(self.transition), 0).double()
        return matrix(self.transition).to(device), matrix(self.emission).to(device), controls.to(device)

    def _filter(self, num_steps: int) -> list[tuple[Tensor, Tensor]]:
        """For every step S_t [O, O] and the gain K_t = P_t Cᵀ S_t⁻¹ [S, O], P_t the covariance of z_t given x_{<t}."""
        transition, emission, _ = self._matrices(torch.device("cpu"))
        state, frame = torch.eye(len(transition)).double(), torch.eye(len(emission)).double()
        prior, steps = self.initial_std**2 * state, []
        for _ in range(num_steps):
            innovation = emission @ prior @ emission.T + self.emission_std**2 * frame
            gain = torch.linalg.solve(innovation, emission @ prior).T
            steps.append((innovation, gain))
            prior = transition @ (prior - gain @ innovation @ gain.T) @ transition.T + self.state_std**2 * state
        return steps
