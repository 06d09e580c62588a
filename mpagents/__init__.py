"""mpagents: a reinforcement-learning bench with generative perception.

    import mpagents
    results = mpagents.run(mpagents.Study.from_file("runs/quickstart.yaml"))
    agent = mpagents.load_agent(results.best("FrozenLake-v1"))

Everything is imported where it is first used: `import mpagents` itself loads nothing heavy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mpagents.configuration import InvalidInput
    from mpagents.encoders import Encoder
    from mpagents.encoding import EncodeObservation
    from mpagents.python_api import load_agent, make_agent
    from mpagents.results.results import Results
    from mpagents.runner import run
    from mpagents.sb3_extractor import EncoderExtractor
    from mpagents.study import Study

__version__ = "0.1.0"

_HOME = {
    "EncodeObservation": "mpagents.encoding",
    "Encoder": "mpagents.encoders",
    "EncoderExtractor": "mpagents.sb3_extractor",
    "InvalidInput": "mpagents.configuration",
    "Results": "mpagents.results.results",
    "Study": "mpagents.study",
    "load_agent": "mpagents.python_api",
    "make_agent": "mpagents.python_api",
    "run": "mpagents.runner",
}

__all__ = [
    "EncodeObservation", "Encoder", "EncoderExtractor", "InvalidInput", "Results", "Study", "__version__", "load_agent",
    "make_agent", "run",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mpagents' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
