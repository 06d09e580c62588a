"""The two networks of every adversarial model, and what they have before them at each update.

    generator G: noise z ~ N(0, I) and a label → data;        discriminator or critic f: data and a label → a number

A label y enters G one-hot beside z, and f by projection, f(x, y) = w·φ(x) + b + v_y·φ(x) (Miyato & Koyama 2018,
arXiv:1802.05637): so the features φ(x) need no label. No network has batch normalisation: a datum is judged alone, which the
penalty of Wasserstein GANs needs.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from generative.autoencoders.coders import check_coders, decoder, encoder
from generative.autoencoders.data_form import DataForm
from generative.autoencoders.gaussian import standard_normal
from generative.autoregressive.ancestral import check_label
from generative.likelihoods import require
from generative.model import Batch
from generative.networks.mlp import activation_of

Judge = Callable[[Tensor, Tensor | None], Tensor]  # (x as inside, label [B] or None) → [B]


class Generator(nn.Module):
    """G(z, y): [B, latent] → [B, D], or [B, C, H, W] within (0, 1) by a sigmoid."""

    def __init__(
        self, form: DataForm, latent: int, hidden: tuple[int, ...], channels: tuple[int, ...], activation: str, num_classes: int
    ) -> None:
        super().__init__()
        self.latent, self.num_classes, self.bounded = latent, num_classes, form.is_frames
        self.network = decoder(form, hidden, channels, activation, latent + num_classes)

    def forward(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        if z.ndim != 2 or z.shape[1] != self.latent:
            raise ValueError(f"z is {list(z.shape)}; expected noise [B, {self.latent}]")
        check_label(label, self.num_classes or None, len(z))
        if label is not None:
            z = torch.cat([z, F.one_hot(label.long(), self.num_classes).to(z)], 1)
        output = self.network(z)
        return output.sigmoid() if self.bounded else output

    def draw(self, n: int, label: Tensor | None, generator: torch.Generator) -> Tensor:
        """G at fresh noise, n data as inside."""
        return self(standard_normal((n, self.latent), generator, next(self.parameters())), label)


class Discriminator(nn.Module):
    """f(x, y) [B] of data as inside: a GAN's logit of D(x), or a critic's value."""

    def __init__(
        self,
        form: DataForm,
        hidden: tuple[int, ...],  # widths of a dense one
        channels: tuple[int, ...],  # of a convolutional one; none: dense
        features: int,  # units of the last hidden layer, φ
        activation: str,
        num_classes: int,
        bias: bool = True,  # of the output; a critic's would cancel out
    ) -> None:
        super().__init__()
        self.centred = form.is_frames
        self.network = nn.Sequential(encoder(form, hidden, channels, activation, features), activation_of(activation))
        self.output = nn.Linear(features, 1, bias)
        self.projection = nn.Embedding(num_classes, features) if num_classes else None
        if self.projection is not None:
            nn.init.zeros_(self.projection.weight)

    def features(self, x: Tensor) -> Tensor:
        """φ(x) [B, features]."""
        return self.network(2 * x - 1 if self.centred else x)

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        features = self.features(x)
        value = self.output(features)[:, 0]  # [B]
        return value if self.projection is None else value + (self.projection(label) * features).sum(1)


def check_players(
    form: DataForm, latent: int, hidden: tuple[int, ...], channels: tuple[int, ...], features: int, num_classes: int
) -> None:
    """Of a configuration. Raises ValueError where the two networks can't be built."""
    check_coders(form, latent, hidden, channels)
    require(features >= 1, "features", features, "at least 1")
    require(num_classes >= 0, "num_classes", num_classes, "0 or more")


def turns(judge: str, judge_updates: int, generator_updates: int) -> tuple[tuple[str, int], ...]:
    """A `schedule`. Without updates of the generator only the judge plays, and so approaches its best reply.

    >>> turns("critic", 5, 1)
    (('critic', 5), ('generator', 1))
    """
    require(judge_updates >= 1, f"{judge}_updates", judge_updates, "at least 1 a step")
    require(generator_updates >= 0, "generator_updates", generator_updates, "0 or more a step")
    return ((judge, judge_updates), ("generator", generator_updates))[: 2 if generator_updates else 1]


def opposed(form: DataForm, generator: Generator, batch: Batch, noise: torch.Generator) -> tuple[Tensor, Tensor, Tensor | None]:
    """(real, fake, label): the batch's data and as many of G, with the same labels, as inside.

    Where the batch has a mask, entries that it leaves out are 0 in both: G learns whole data from such (Bora et al. 2018).
    """
    real = form.inputs(batch["x"], next(generator.parameters()).dtype)
    label = batch.get("label") if generator.num_classes else None
    fake = generator.draw(len(real), label, noise)
    mask = form.mask_of(batch)
    return (real, fake, label) if mask is None else (real * mask, fake * mask, label)


def frozen(judge: nn.Module) -> Judge:
    """The judge as it is: gradients pass through to its inputs, none go to its parameters."""
    return with_weights(judge, {name: parameter.detach() for name, parameter in judge.named_parameters()})


def with_weights(judge: nn.Module, weights: dict[str, Tensor]) -> Judge:
    """The judge with other weights and with buffers of its own: what it is asked changes nothing in `judge`."""
    state = {name: buffer.clone() for name, buffer in judge.named_buffers()} | weights
    return lambda x, label: functional_call(judge, state, (x, label))


@torch.compiler.disable  # torch.compile has no second derivatives
def input_gradients(judge: Judge, x: Tensor, label: Tensor | None) -> Tensor:
    """∇_x f(x, y), flattened to [B, D] a datum; differentiable."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(judge(x, label).sum(), x, create_graph=True)
    return gradient.flatten(1)
