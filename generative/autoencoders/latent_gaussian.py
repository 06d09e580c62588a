"""What VAE and β-VAE share: a Gaussian latent, its decoder p(x | z) and its approximate posterior q(z | x).

    log p(x) ≥ ELBO(x) = E_q log p(x | z) − KL(q(z | x) ‖ N(0, I))                               (notes §5.3)
    log p(x) ≥ IW_K(x) = E log (1/K) Σ_k p(x | z_k) p(z_k) / q(z_k | x) ≥ ELBO(x),  z_k ~ q      (Burda et al. 2016)

With labels y the decoder is p(x | z, y), which takes y one-hot beside z, and the bounds are of log p(x | y). The encoder
stays q(z | x), unlike that of Sohn et al. 2015: data tell their class, and so they can be encoded without it.

Frames with a Gaussian or Laplace head are taken about the mean of the first training batch, in the encoder and in the decoder.
Else codes far from 0 carry the mean frame, a poor optimum that training hardly leaves: where most pixels never change, samples
of the prior were no frames at all.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.autoencoders.coders import decoder, encoder
from generative.autoencoders.data_form import DataForm, scored_sum
from generative.autoencoders.gaussian import kl_to_standard_normal, normal_log_prob, reparametrise, standard_normal
from generative.autoencoders.observation import Head, Observation, Scale
from generative.likelihoods import soft_bound
from generative.model import Batch

LOG_STD_BOUNDS = (-10.0, 7.0)  # of q
AT_ONCE = 65_536  # codes that `importance_weighted` decodes at a time, at most


class LatentGaussian(nn.Module):
    """q(z | x) = N(μ(x), diag σ²(x)), p(z) = N(0, I) and p(x | z, y). x is data as recorded, y labels [B] or None."""

    centre: Tensor  # the mean frame [C, H, W]; 0 where `centres` is false
    centred: Tensor  # whether it is known, or not needed

    def __init__(
        self,
        form: DataForm,
        latent: int,
        hidden: tuple[int, ...],
        channels: tuple[int, ...],
        activation: str,
        head: Head,
        scale: Scale,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        self.form, self.latent, self.num_classes = form, latent, num_classes
        self.observation = Observation(form, head, scale)
        self.encoder = encoder(form, hidden, channels, activation, 2 * latent)
        parameters = self.observation.out_features
        self.decoder = decoder(form, hidden, channels, activation, latent + num_classes, parameters)
        self.centres = form.is_frames and head in ("gaussian", "laplace") and parameters == 1
        self.register_buffer("centre", torch.zeros(form.inner if self.centres else ()))
        self.register_buffer("centred", torch.tensor(not self.centres))

    def inputs(self, x: Tensor, finite: bool = True) -> Tensor:
        return self.form.inputs(x, self.centre.dtype, finite)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, log σ) of q(z | x), each [B, L]."""
        return self._posterior(self.inputs(x))

    def _posterior(self, inner: Tensor) -> tuple[Tensor, Tensor]:
        mean, raw = self.encoder(inner - self.centre if self.centres else inner).chunk(2, 1)
        return mean, soft_bound(raw, *LOG_STD_BOUNDS)

    def output(self, z: Tensor, label: Tensor | None) -> Tensor:
        """The decoder's raw output for z [B, L]. Raises ValueError for codes of another shape and missing labels."""
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"z is {list(z.shape)}; expected codes [B, {self.latent}]")
        if self.num_classes:
            z = torch.cat([z, self._one_hot(label, len(z), z)], 1)
        elif label is not None:
            raise ValueError("got labels for a model without condition: leave cond out, or set num_classes")
        output = self.decoder(z)
        return output + self.centre if self.centres else output

    def log_likelihood(self, inner: Tensor, z: Tensor, label: Tensor | None, mask: Tensor | None = None) -> Tensor:
        """log p(x | z, y) [B] in nats, of x as `inputs` gives it."""
        return scored_sum(self.observation.log_prob(self.output(z, label), inner), mask)

    def bound_terms(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """(log p(x | z) [B] at one z ~ q, KL of each dimension [B, L], posterior means [B, L]) of a batch."""
        inner = self.inputs(batch["x"], finite=not self.observation.binary)  # bits are looked at by their likelihood
        label = batch.get("label") if self.num_classes else None
        if self.training and self.centres:
            find_centre(self, inner)
        mean, log_std = self._posterior(inner)
        z = reparametrise(mean, log_std, standard_normal(tuple(mean.shape), generator, mean))
        likelihood = self.log_likelihood(inner, z, label, self.form.mask_of(batch))
        return likelihood, kl_to_standard_normal(mean, log_std), mean

    def elbo(self, x: Tensor, label: Tensor | None, generator: torch.Generator | None) -> Tensor:
        """ELBO [B] in nats, with one z for each x; without a generator the noise is always the same."""
        batch = {"x": x} if label is None else {"x": x, "label": label}
        likelihood, kl, _ = self.bound_terms(batch, generator or torch.Generator(x.device).manual_seed(0))
        return likelihood - kl.sum(1)

    def importance_weighted(self, x: Tensor, label: Tensor | None, num_samples: int, generator: torch.Generator) -> Tensor:
        """IW_K [B] in nats, K = `num_samples`: from the ELBO at K = 1 up to log p(x) as K grows."""
        inner = self.inputs(x)
        mean, log_std = self._posterior(inner)
        blocks = []
        for size in _blocks(num_samples, max(1, AT_ONCE // len(inner))):
            z = reparametrise(mean, log_std, standard_normal((size, *mean.shape), generator, mean))  # [K', B, L]
            many = inner.repeat(size, *(1,) * (inner.ndim - 1)), None if label is None else label.repeat(size)
            likelihood = self.log_likelihood(many[0], z.flatten(0, 1), many[1]).unflatten(0, (size, -1))  # [K', B]
            prior = normal_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))
            blocks.append((likelihood + prior - normal_log_prob(z, mean, log_std)).logsumexp(0))
        return torch.stack(blocks).logsumexp(0) - math.log(num_samples)

    def sample(self, n: int, label: Tensor | None, generator: torch.Generator) -> Tensor:
        """x ~ p(x | z, y), z ~ N(0, I): n data as recorded."""
        z = standard_normal((n, self.latent), generator, next(self.parameters()))
        return self.form.recorded(self.observation.sample(self.output(z, label), generator))

    def decode(self, z: Tensor, label: Tensor | None) -> Tensor:
        """E[x | z, y] as data are recorded."""
        return self.form.recorded(self.observation.mean(self.output(z, label)))

    def _one_hot(self, label: Tensor | None, n: int, like: Tensor) -> Tensor:
        """[n, num_classes]. Raises ValueError for labels that are missing, of another shape or unknown."""
        if label is None:
            raise ValueError(f"label is missing: this model is conditioned on it; give {n} labels as cond")
        if label.shape != (n,) or label.is_floating_point():
            raise ValueError(f"label is {label.dtype} {list(label.shape)}; expected int64 [{n}]")
        if not torch.compiler.is_compiling() and ((label < 0) | (label >= self.num_classes)).any():
            raise ValueError(f"labels are {label.unique().tolist()}; expected 0 to {self.num_classes - 1}: set num_classes")
        return F.one_hot(label.long(), self.num_classes).to(like)


@torch.compiler.disable  # it looks at a flag, once a batch
@torch.no_grad()
def find_centre(model: LatentGaussian, inner: Tensor) -> None:
    """Take the mean of a first batch of frames [B, C, H, W]."""
    if not model.centred:
        model.centre.copy_(inner.mean(0))
        model.centred.fill_(True)


def _blocks(total: int, largest: int) -> list[int]:
    """`total` in parts of at most `largest`. Raises ValueError below 1."""
    if total < 1:
        raise ValueError(f"num_samples is {total}; expected at least 1")
    return [min(largest, total - done) for done in range(0, total, largest)]
