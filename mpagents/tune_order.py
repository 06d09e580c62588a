"""What a worker is told to do: one configuration's trials, and where they stand in the search's folder.

    search/<env>/<agent>.c0003[.g1][+<encoder>]/seed=<n>/

A member of a population goes through generations (`.g1`), each a folder of its own with `generation.json`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mpagents.encoder_specification import job_of
from mpagents.results.files import check_inside, read_json, read_status
from mpagents.specification import TrialSpec

GENERATION = "generation.json"  # in a generation's folder: its settings, and where it came from


@dataclass(frozen=True)
class Order:
    """What a worker is to do: the trials of a configuration, whose labels don't tell its id yet."""

    id: str  # of the configuration
    specs: list[TrialSpec]  # one a seed
    values: dict[str, Any]  # of the space's keys
    metric: str
    root: Path  # the search's folder
    population: bool  # population-based training: generations
    generation: int = 0
    mark: int = 0  # the evaluation from which a population's member continues

    def to_json(self) -> str:
        values = {key: getattr(self, key) for key in ("id", "values", "metric", "population", "generation", "mark")}
        return json.dumps(values | {"root": str(self.root), "specs": [spec.to_json() for spec in self.specs]})

    @classmethod
    def from_json(cls, text: str) -> Order:
        values = json.loads(text)
        specs = [TrialSpec.from_json(spec) for spec in values.pop("specs")]
        return cls(specs=specs, root=Path(values.pop("root")), **values)

    @property
    def marks(self) -> int:
        """Evaluations of a trial."""
        spec = self.specs[0]
        return 1 if spec.planner else -(-spec.steps // spec.evaluation.every)

    def labelled(self, id: str, generation: int) -> list[TrialSpec]:
        """The trials as they stand in the search's folder."""
        ending = f".{id}.g{generation}" if self.population else f".{id}"
        return [replace(spec, agent=replace(spec.agent, label=spec.agent.label + ending)) for spec in self.specs]

    def problem(self, id: str) -> str | None:
        """What a trial of the configuration, or the encoder that it sees by, says of its failure."""
        told = newest_generation(self, id) if self.population else None
        trials = self.labelled(id, told["generation"] if told else 0)
        job = job_of(self.specs[0])
        for path in [spec.path for spec in trials] + ([job.path] if job else []):
            status = read_status(self.root, path)
            if status.get("status") == "failed":
                return f"{path}: {status['error']['message']}"
        return None


def newest_generation(order: Order, id: str) -> dict[str, Any] | None:
    """{generation, values, mark, of} of a population's member; None before its first."""
    found, generation = None, 0
    while (told := read_json(generation_folder(order, id, generation) / GENERATION)) is not None:
        found, generation = told | {"generation": generation}, generation + 1
    return found


def generation_folder(order: Order, id: str, generation: int) -> Path:
    path = Path(order.labelled(id, generation)[0].path).parent
    check_inside(order.root, str(path))
    return order.root / path
