"""What the recurrent networks share: the loss of the next step or of a sequence's label, and predicting that label."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from generative.model import Batch, Metrics
from generative.networks.sequence_data import SequenceData, label_sequence, scored_loss


class Recurrent(Protocol):
    """What these functions need of a network."""

    config: Any
    data: SequenceData  # of x
    predicted: SequenceData  # of what the outputs are about: x, or the label as a sequence of one step

    def features(self, x: Tensor, first: Tensor | None = None) -> Tensor: ...

    def readout(self, features: Tensor) -> Tensor: ...


def recurrent_loss(model: Recurrent, batch: Batch) -> tuple[Tensor, Metrics]:
    """−log p(x), or −log p(label | x) from the last state; mean over the batch, nats."""
    x, first = model.data.checked(batch["x"]), batch.get("first")
    if model.config.target == "next":
        parameters = model.readout(model.features(x[:, :-1], first))  # [B, T, D, P]
        return scored_loss(model.data.log_prob(parameters, x), batch.get("mask"))
    if "label" not in batch:
        raise ValueError(f"the batch has {', '.join(batch)}; expected label too, or set target to 'next'")
    label = label_sequence(batch["label"], model.predicted)
    parameters = model.readout(model.features(x, first)[:, -1:])  # [B, 1, L, P]
    return scored_loss(model.predicted.log_prob(parameters, label), None)


def predict_label(model: Recurrent, x: Tensor) -> Tensor:
    """The label's mean [B, L], or its most probable class [B] with a categorical head of one value."""
    if model.config.target != "label":
        raise ValueError("predict is for labels; this model was built for the next step: set target to 'label'")
    parameters = model.readout(model.features(model.data.checked(x))[:, -1])  # [B, L, P]
    if model.predicted.head == "categorical":
        classes = parameters.argmax(-1)
        return classes[:, 0] if model.predicted.size == 1 else classes
    return model.predicted.likelihood.mean(parameters)


def without_density(model: Any) -> None:
    """A model of labels given sequences has no density of the sequences."""
    model.sample = model.log_prob = None
