"""Masked autoencoder for distribution estimation: one network whose masked weights make its outputs the conditionals.

Every dimension has a place m⁰(d) in the ordering and every hidden unit a degree m(k), both from 1; a hidden unit sees the
dimensions up to its degree, an output those before it:

    W̄ = W ⊙ M,  M_kj = 1{m(j) ≤ m(k)} into hidden layers,  1{m(j) < m⁰(d)} into the outputs

so p(x) = Π_d p(x_d | x_e with m⁰(e) < m⁰(d)) comes of one pass, and sampling visits the dimensions in the inverse of the
ordering, a pass each. Hidden degrees cover 1 … D − 1 evenly, or are drawn at random (the paper's), anew for each of several
masks; the ordering is the same in all of them, or drawn for each (order-agnostic). Training picks a mask for each minibatch;
evaluation averages, p(x) = (1/K) Σ_k p_k(x), which is a distribution whatever the orderings.

Source: Germain et al. 2015, arXiv:1502.03509; notes §6.3. Additions: labels may shift every bias, inputs may be dropped in
training, and other heads take levels and real numbers.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.autoregressive import ancestral
from generative.discretised_logistic import DiscretisedLogisticMixture
from generative.likelihoods import Bernoulli, CategoricalHead, Gaussian, Likelihood, require
from generative.model import Batch, GenerativeModel, Metrics, Picture

HEADS = ("bernoulli", "categorical", "discretised_logistic", "gaussian")


@dataclass(frozen=True)
class MADEConfig:
    dimensions: int  # D of x [B, D]
    hidden_sizes: tuple[int, ...] = (500,)  # units
    ordering: Literal["natural", "random"] | tuple[int, ...] = "natural"  # place of each dimension, 0 … D − 1
    degrees: Literal["even", "random"] = "even"  # of the hidden units; several masks: random ones
    num_masks: int = 1
    order_agnostic: bool = False  # an ordering drawn for each mask
    mask_seed: int = 0  # of what is drawn for the masks
    direct: bool = False  # masked connections from the inputs to the outputs too
    head: Literal["bernoulli", "categorical", "discretised_logistic", "gaussian"] = "bernoulli"
    levels: int = 2  # of x with the heads categorical and discretised_logistic: 0 … levels − 1
    components: int = 1  # of a mixture, with the head discretised_logistic
    num_classes: int | None = None  # K of the labels that it is conditioned on; None: unconditional
    input_dropout: float = 0.0  # probability, in training

    def __post_init__(self) -> None:
        ancestral.check_config(self.dimensions, self.num_classes, self.input_dropout)
        require(
            len(self.hidden_sizes) >= 1 and min(self.hidden_sizes) >= 1, "hidden_sizes", self.hidden_sizes, "1 or more each"
        )
        named = self.ordering in ("natural", "random")
        permutation = named or sorted(self.ordering) == list(range(self.dimensions))
        require(permutation, "ordering", self.ordering, f"natural, random, or each place 0 … {self.dimensions - 1} once")
        require(self.degrees in ("even", "random"), "degrees", repr(self.degrees), "even or random")
        require(self.head in HEADS, "head", repr(self.head), " or ".join(HEADS))
        for name in ("num_masks", "components"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(self.levels >= 2, "levels", self.levels, "at least 2")
        require(not self.order_agnostic or self.num_masks > 1, "num_masks", self.num_masks, "several, to be order-agnostic")


def head_of(config: MADEConfig) -> Likelihood:
    if config.head == "bernoulli":
        return Bernoulli()
    if config.head == "categorical":
        return CategoricalHead(config.levels)
    if config.head == "discretised_logistic":
        return DiscretisedLogisticMixture(config.levels, config.components)
    return Gaussian(scale=None)


def draw_orderings(config: MADEConfig, generator: torch.Generator) -> Tensor:
    """m⁰ of every mask, the place of each dimension, from 1: [K, D]."""
    if config.order_agnostic:
        return torch.stack([torch.randperm(config.dimensions, generator=generator) for _ in range(config.num_masks)]) + 1
    if config.ordering == "random":
        one = torch.randperm(config.dimensions, generator=generator)
    else:
        one = torch.arange(config.dimensions) if config.ordering == "natural" else torch.tensor(config.ordering)
    return one.repeat(config.num_masks, 1) + 1


def draw_degrees(config: MADEConfig, size: int, lowest: int, generator: torch.Generator) -> Tensor:
    """Degrees [size] of a hidden layer, from `lowest` (of the layer below: a unit below that would see nothing) to D − 1."""
    highest = max(config.dimensions - 1, 1)
    if config.degrees == "random" or config.num_masks > 1:
        return torch.randint(lowest, highest + 1, (size,), generator=generator)
    return torch.linspace(lowest, highest, size).round().long()


def masks_of(config: MADEConfig, orderings: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Masks [K, out, in] of every layer between dimensions and units, then of the direct connections; bool."""
    layers: list[list[Tensor]] = []
    for places in orderings:
        degrees, lowest = [places], 1
        for size in config.hidden_sizes:
            degrees.append(draw_degrees(config, size, lowest, generator))
            lowest = int(degrees[-1].min())
        masks = [below <= above[:, None] for below, above in itertools.pairwise(degrees)]
        layers.append([*masks, degrees[-1] < places[:, None], places < places[:, None]])
    return [torch.stack(of_layer) for of_layer in zip(*layers, strict=True)]


class MaskedLinear(nn.Module):
    """y = (W ⊙ M_k) x + b, with k = `which` [1] one of several masks, and b shifted by the label."""

    mask: Tensor  # [K, out, in]

    def __init__(self, mask: Tensor, num_classes: int | None, bias: bool = True) -> None:
        super().__init__()
        _, out_features, in_features = mask.shape
        bound = 1 / math.sqrt(in_features)
        self.register_buffer("mask", mask)
        self.weight = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out_features).uniform_(-bound, bound)) if bias else None
        self.label_bias = ancestral.label_shift(num_classes, out_features)

    def forward(self, x: Tensor, which: Tensor, label: Tensor | None) -> Tensor:
        output = F.linear(x, self.weight * self.mask.index_select(0, which)[0], self.bias)
        return output if self.label_bias is None or label is None else output + self.label_bias(label)


class MADE(GenerativeModel):
    """p(x) of x [B, D]: zeros and ones, levels, or real numbers (best scaled to about unit variance), by its head."""

    Config = MADEConfig
    config: MADEConfig
    orderings: Tensor  # m⁰ [K, D], from 1

    def __init__(self, config: MADEConfig) -> None:
        super().__init__(config)
        self.head = head_of(config)
        self.levels = None if config.head == "gaussian" else 2 if config.head == "bernoulli" else config.levels
        drawn = torch.Generator().manual_seed(config.mask_seed)
        self.register_buffer("orderings", draw_orderings(config, drawn))
        masks = masks_of(config, self.orderings, drawn)
        width = config.levels if config.head == "categorical" else 1  # inputs of each dimension
        masks[0], masks[-1] = (mask.repeat_interleave(width, 2) for mask in (masks[0], masks[-1]))
        masks[-2], masks[-1] = (mask.repeat_interleave(self.head.out_features, 1) for mask in masks[-2:])
        self.hidden = nn.ModuleList(MaskedLinear(mask, config.num_classes) for mask in masks[:-2])
        self.last = MaskedLinear(masks[-2], config.num_classes)
        self.direct = MaskedLinear(masks[-1], None, bias=False) if config.direct else None
        if config.num_classes is not None:
            self.conditioned_on = "label"
            self.encode = None  # type: ignore[method-assign,assignment]  # its hidden units are of x and the label

    def conditionals(self, inputs: Tensor, cond: Tensor | None, which: Tensor) -> Tensor:
        """The head's parameters [B, D, P] of every p_k(x_d | x before d), from `inputs` [B, D, width] and k [1]."""
        inputs = inputs.flatten(1)
        output = self.last(self._hidden(inputs, cond, which), which, cond)
        if self.direct is not None:
            output = output + self.direct(inputs, which, None)
        return output.unflatten(1, (self.config.dimensions, -1))

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        x, label = self._checked(batch["x"], batch.get("label") if self.conditioned_on else None)
        if not self.training:
            return -self._mixed([ancestral.scored(each, batch) for each in self._log_probs(x, label)]).mean(), {}
        inputs = self.inputs(x)
        which = torch.randint(self.config.num_masks, (1,), generator=generator, device=generator.device)
        if self.config.input_dropout:
            inputs = ancestral.drop_inputs(inputs, self.config.input_dropout, generator)
        log_prob = self.head.log_prob(self.conditionals(inputs, label, which), x)
        return -ancestral.scored(log_prob, batch).mean(), {}

    def log_prob(self, x: Tensor, cond: Tensor | None = None) -> Tensor:
        """Exact log p(x) or log p(x | label) [B], nats, of the mixture over the masks."""
        x, cond = self._checked(x, cond)
        return self._mixed([each.sum(1) for each in self._log_probs(x, cond)])

    @torch.no_grad()
    def sample(
        self, n: int, cond: Tensor | None = None, *, generator: torch.Generator, given: Tensor | None = None, num_given: int = 0
    ) -> Tensor:
        """x [n, D]; the `num_given` values that come first in the ordering are those of `given` [n, D].

        Every datum is drawn with one mask, chosen by p(k | the given values) ∝ p_k(given values). Orderings that differ have no
        values in common that come first: there given values are those of the first mask, and it alone draws the others.
        """
        config = self.config
        ancestral.check_label(cond, config.num_classes, n)
        visits = self.orderings.argsort(1).tolist()  # the inverse of each ordering
        x = ancestral.starting_point(n, given, num_given, visits[0], self.last.weight, self.levels)
        weights = torch.stack([each[:, visits[0][:num_given]].sum(1) for each in self._log_probs(x, cond)], 1).softmax(1)
        if config.order_agnostic and num_given:
            weights = weights[:, :1]
        noise = self.head.noise((n, config.dimensions), generator).to(x.device)
        chosen = torch.multinomial(weights.to(generator.device), 1, generator=generator)[:, 0].to(x.device)
        for which in chosen.unique().split(1):
            rows = chosen == which
            label = None if cond is None else cond[rows]

            def conditional(x: Tensor, place: int, which: Tensor = which, label: Tensor | None = label) -> Tensor:
                return self.conditionals(self.inputs(x), label, which)[:, place]

            places = visits[int(which)][num_given:]
            x[rows] = ancestral.ancestral_sample(conditional, self.head, x[rows], noise[rows], places)
        return x

    def encode(self, x: Tensor) -> Tensor:
        """The last hidden layer [B, H], with the first mask."""
        x, _ = self._checked(x, None)
        return self._hidden(self.inputs(x).flatten(1), None, self._every_mask()[0])

    def pictures(self) -> dict[str, Picture]:
        """Masks [out, in] of every layer, and which dimension (column) each output (row) sees; white is seen."""
        masks = [layer.mask[0].cpu() for layer in (*self.hidden, self.last)]
        made = {f"mask/{i}": mask for i, mask in enumerate(masks)}
        paths = masks[0].double()
        for mask in masks[1:]:
            paths = (mask.double() @ paths).clamp(max=1)
        if self.direct is not None:
            paths = paths + self.direct.mask[0].cpu()
        dimensions = self.config.dimensions
        made["receptive_field"] = paths.view(dimensions, -1, dimensions, paths.shape[1] // dimensions).amax((1, 3)) > 0
        return {name: (mask.to(torch.uint8) * 255).numpy()[..., None] for name, mask in made.items()}

    def inputs(self, x: Tensor) -> Tensor:
        """x [B, D] as the network takes it [B, D, width]: levels one-hot, or scaled to [−1, 1]."""
        if self.config.head == "categorical":
            return F.one_hot(x.long(), self.config.levels).to(x.dtype)
        return (x * (2 / (self.config.levels - 1)) - 1 if self.config.head == "discretised_logistic" else x)[..., None]

    def _hidden(self, inputs: Tensor, label: Tensor | None, which: Tensor) -> Tensor:
        for layer in self.hidden:
            inputs = layer(inputs, which, label).relu()
        return inputs

    def _log_probs(self, x: Tensor, label: Tensor | None) -> list[Tensor]:
        """log p_k(x_d | x before d) [B, D] for every mask k."""
        inputs = self.inputs(x)
        return [self.head.log_prob(self.conditionals(inputs, label, which), x) for which in self._every_mask()]

    def _every_mask(self) -> tuple[Tensor, ...]:
        """The numbers of all masks, [1] each."""
        return torch.arange(self.config.num_masks, device=self.orderings.device).split(1)

    def _mixed(self, log_probs: list[Tensor]) -> Tensor:
        return torch.stack(log_probs).logsumexp(0) - math.log(self.config.num_masks)

    def _checked(self, x: Tensor, label: Tensor | None) -> tuple[Tensor, Tensor | None]:
        ancestral.check_x(x, self.config.dimensions, self.levels)
        ancestral.check_label(label, self.config.num_classes, len(x))
        return x.to(self.last.weight.dtype), label
