"""What every flow does once its transformation is given: density, training, sampling and codes of data as recorded."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.autoencoders.data_form import DataForm
from generative.autoencoders.gaussian import standard_normal
from generative.autoregressive.ancestral import check_label
from generative.flows.act_norm import start_activation_norms
from generative.flows.dequantisation import to_levels, to_line
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics


def check_flow(form: DataForm, num_classes: int, alpha: float, log_scale_bound: float) -> None:
    """Of a configuration. Raises ValueError."""
    require(form.size >= 2, "shape", form.shape, "at least 2 dimensions: a coupling moves some by the others")
    require(num_classes >= 0, "num_classes", num_classes, "0 (no labels) or more")
    require(0 < alpha < 0.5, "alpha", alpha, "above 0 and below 0.5")
    require(0 < log_scale_bound <= 10, "log_scale_bound", log_scale_bound, "above 0, at most 10")


def standard_normal_log_prob(z: Tensor) -> Tensor:
    """log N(z; 0, I) of z [B, D]: [B] nats."""
    return -0.5 * z.square().sum(1) - 0.5 * z.shape[1] * math.log(2 * math.pi)


class FlowDensity(nn.Module):
    """log p(x | label) = log N(z; 0, I) + log |det ∂z/∂x|, z = transformation(x) [B, D].

    Vectors have a density in their own units. Frames are levels: noise makes them continuous, and log p of that is on average
    a lower bound of log P(levels), so a flow over frames has an `elbo` and no `log_prob`.
    """

    def __init__(self, form: DataForm, transformation: nn.Module, num_classes: int, alpha: float) -> None:
        super().__init__()
        self.form, self.transformation = form, transformation
        self.num_classes, self.alpha = num_classes, alpha

    def settle_capabilities(self, model: GenerativeModel) -> None:
        """Take from `model` what its data rule out: the exact likelihood of levels, codes that need the label beside them."""
        absent = ["log_prob" if self.form.is_frames else "elbo"]
        if self.num_classes:
            model.conditioned_on = "label"
            absent += ["encode", "decode"]
        for name in absent:
            setattr(model, name, None)

    def loss(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        """Mean of −log p, or of its bound by one noise, in nats. Raises ValueError for masked batches."""
        if "mask" in batch:
            raise ValueError("the batch has a mask; expected none: a flow's density is of whole data. Leave the mask out")
        label = batch.get("label") if self.num_classes else None
        log_prob = self.log_prob(batch["x"], label, generator, start=self.training)
        return -log_prob.mean(), {"log_prob": log_prob.detach().mean()}

    def log_prob(
        self, x: Tensor, label: Tensor | None, generator: torch.Generator | None = None, *, start: bool = False
    ) -> Tensor:
        """[B] nats; of frames the bound by one noise, the same without a generator. `start`: activation norms may be set."""
        condition = self.condition(label, len(x))
        y, log_slope = self._continuous(x, generator or torch.Generator(x.device).manual_seed(0))
        if start:
            start_activation_norms(self.transformation, y, condition)
        z, log_det = self.transformation(y, condition)
        return standard_normal_log_prob(z) + log_det + log_slope

    def sample(self, n: int, label: Tensor | None, generator: torch.Generator, temperature: float) -> Tensor:
        """n data as recorded, of z ~ N(0, temperature² I)."""
        require(0 <= temperature < math.inf, "temperature", temperature, "0 or more")
        z = temperature * standard_normal((n, self.form.size), generator, self._like())
        return self.decode(z, label)

    def encode(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """z [B, D]; of frames at the middle of their levels."""
        condition = self.condition(label, len(x))
        return self.transformation(self._continuous(x, None)[0], condition)[0]

    def decode(self, z: Tensor, label: Tensor | None = None) -> Tensor:
        """Data as recorded from z [B, D]. Raises ValueError for other shapes, FloatingPointError for NaN in frames."""
        if z.ndim != 2 or z.shape[1] != self.form.size:
            raise ValueError(f"z is {list(z.shape)}; expected codes [B, {self.form.size}], as many as the data's dimensions")
        y = self.transformation.inverse(z.to(self._like()), self.condition(label, len(z)))  # type: ignore[operator]
        if not self.form.is_frames:
            return y
        if y.isnan().any():  # which no level could tell
            raise FloatingPointError("the inverse is not a number somewhere: check z and the weights, or lower temperature")
        return to_levels(y, self.form.levels, self.alpha).movedim(1, -1).to(torch.uint8)

    def condition(self, label: Tensor | None, n: int) -> Tensor | None:
        """Labels [n] as [n, num_classes] of 0 and 1. Raises ValueError for those missing, out of range or without use."""
        check_label(label, self.num_classes or None, n)
        return None if label is None else F.one_hot(label.long(), self.num_classes).to(self._like())

    def _continuous(self, x: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """(what is transformed, log |det| of what leads there [B]); of frames with noise, ½ where there is no generator."""
        inner = self.form.inputs(x, self._like().dtype)
        if not self.form.is_frames:
            return inner, inner.new_zeros(len(inner))
        levels = (inner * (self.form.levels - 1)).round()
        noise = torch.full_like(levels, 0.5)
        if generator is not None:
            noise = torch.rand(levels.shape, generator=generator, device=generator.device).to(levels)
        return to_line(levels, noise, self.form.levels, self.alpha)

    def _like(self) -> Tensor:
        return next(self.parameters())
