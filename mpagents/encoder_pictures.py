"""What an agent's encoder makes of the frames that the agent sees now, as a picture: each beside its reconstruction."""

from __future__ import annotations

from typing import Any

import torch

MOST = 8  # frames


def reconstructions(agent: Any, env: Any) -> dict[str, Any]:
    """{"encoder/reconstructions": uint8 [H, W, C]} where the model decodes frames; else {}."""
    from generative.model import capabilities
    from generative.pictures import grid

    encoder, seen = _eye(agent, env)
    if encoder is None or seen is None or len(encoder.shape) != 3 or not capabilities(encoder.model) >= {"encode", "decode"}:
        return {}
    if encoder.num_kept is not None:  # a part of the code alone can't be decoded
        return {}
    with torch.no_grad():
        x = encoder.recorded(torch.as_tensor(seen)[:MOST].to(encoder.mean.device))
        rebuilt = encoder.model.decode(encoder.model.encode(x))
        if x.shape[3] not in (1, 3):  # the newest of stacked frames
            x, rebuilt = x[..., -1:], rebuilt[..., -1:]
        return {"encoder/reconstructions": grid(torch.stack([x, rebuilt.to(x)], 1).flatten(0, 1), 2, like=x)}


def _eye(agent: Any, env: Any) -> tuple[Any, Any]:
    """(the encoder as it is now, what it saw last [n, …])."""
    if hasattr(env, "encoder"):
        key = env.encoder.settings.key
        return env.encoder, env.seen if key is None or env.seen is None else env.seen[key]
    encoder = getattr(getattr(agent, "codec", None), "encoder", None)
    return encoder, None if encoder is None else agent.collector.obs.get(encoder.settings.key or "")
