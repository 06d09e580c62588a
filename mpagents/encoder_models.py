"""What an encoder has to know of a generative model: the form of its data, whether it remembers, and what its loss needs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def datum_shape(model: Any) -> tuple[int, ...]:
    """Of one observation as the model takes it: (H, W, C) or (D,). Raises ValueError where its configuration tells none."""
    config = getattr(model, "autoencoder", model).config
    for name in ("shape", "image_shape"):
        if hasattr(config, name):
            return tuple(getattr(config, name))
    if hasattr(config, "height"):
        return config.height, config.width, config.channels
    for name in ("dimensions", "in_features"):
        if hasattr(config, name):
            return (getattr(config, name),)
    if hasattr(config, "num_steps") and hasattr(config, "size"):  # of sequences: in time, or along one vector
        return (config.num_steps if config.vectors else config.size,)
    raise ValueError(f"{type(config).__name__} tells no shape of the data; give it a field `shape`, (H, W, C) or (D,)")


def is_recurrent(model: Any) -> bool:
    """Whether codes depend on what was seen before: models of sequences in time."""
    if hasattr(model, "filter") and hasattr(model, "cell"):
        return True
    return hasattr(model, "state_features") and hasattr(model, "step") and not getattr(model.config, "vectors", True)


def coarsest_size(model: Any, size: int) -> int:
    """How many dimensions of a flow's code are left after its last split; they are the first ones. Raises ValueError."""
    from generative.flows.multi_scale import Split

    num_splits = sum(isinstance(module, Split) for module in model.modules())
    if not num_splits:
        raise ValueError(f"coarsest is of flows over frames with several scales; expected one, got {type(model).__name__}")
    return size >> num_splits


@torch.no_grad()
def check_loss(model: Any, x: Tensor, what: str) -> None:
    """Raises ValueError where the model's loss on data x alone can't be had: it learns of labels, or of texts."""
    try:
        model.loss({"x": x}, generator=torch.Generator(x.device))
    except ValueError as error:
        needs = f"its loss needs more than observations ({error})"
        raise ValueError(f"{what}: {needs}; expected 'finetune' or 'frozen'") from error
