"""Every study file in runs/ is valid and runs, at tiny sizes."""

from __future__ import annotations

import dataclasses

import pytest

from mpagents.configuration import InvalidInput
from mpagents.encoder_specification import EncoderJob
from mpagents.encoder_stage import make_encoder
from mpagents.probes import mlp_probe
from mpagents.specification import Evaluation
from mpagents.study import Study
from mpagents.trial import run_trial
from tests.conftest import ROOT

FILES = sorted((ROOT / "runs").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=[path.stem for path in FILES])
def test_study_file_runs(path, tmp_path, monkeypatch):
    monkeypatch.setitem(mlp_probe.__kwdefaults__, "steps", 20)  # each encoder is probed
    study = dataclasses.replace(Study.from_file(path), seeds=1)
    try:
        trials = study.trials().trials
    except InvalidInput as error:
        if "is not installed" not in str(error):
            raise
        pytest.skip(str(error))
    for spec in trials:
        tiny = dataclasses.replace(spec, steps=300, evaluation=Evaluation(every=150, episodes=1))
        if spec.agent.name == "imagination":
            agent = dataclasses.replace(
                spec.agent, config=spec.agent.config | {"collect_steps": 150, "updates": 2, "rollouts": 1}
            )
            tiny = dataclasses.replace(tiny, agent=agent)
        if spec.encoder is not None:
            fit = spec.encoder.fit | {"steps": min(2, spec.encoder.fit["steps"]), "validation_size": 10}
            small = dataclasses.replace(spec.encoder, fit=fit, data=spec.encoder.data | {"steps": 80})
            tiny = dataclasses.replace(tiny, encoder=small)
            make_encoder(EncoderJob(tiny.env, small), tmp_path)
        status = run_trial(tiny, tmp_path)
        assert status["status"] == "finished", (spec.path, status["error"])
