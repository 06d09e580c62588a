"""What holds on the processor holds on a GPU, where there is one: every generative model, the deep agents, encoders, dreams."""

from __future__ import annotations

import copy
import inspect
import json

import numpy as np
import pytest
import torch

import generative
import mpagents
from generative import capabilities
from mpagents.agents import AGENTS
from mpagents.environments import EnvironmentSpec, make_vector
from mpagents.evaluation import evaluate
from mpagents.python_api import make_agent
from mpagents.results.checkpoint import load_checkpoint, save_checkpoint
from tests.test_agents import QUICK, is_deep
from tests.test_model_laws import EVERY, condition, seeded, trained
from tests.test_trial import same_state

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")

DEEP = [name for name in AGENTS if is_deep(name) and name != "imagination"]  # its worlds are dreamt on the processor
SETTINGS = QUICK | {"sb3": {"num_envs": 4, "settings": {"n_steps": 250, "batch_size": 250, "n_epochs": 1}}}
CARTPOLE = EnvironmentSpec("CartPole-v1", label="pole")


def on_gpu(seed: int = 0) -> torch.Generator:
    return torch.Generator("cuda").manual_seed(seed)


@EVERY
def test_model_gives_on_cuda_what_it_gives_on_the_processor(case):
    model, batch = trained(case).to("cpu"), case.sample(6, seeded(1))
    there, moved = copy.deepcopy(model).to("cuda"), {key: value.to("cuda") for key, value in batch.items()}
    with torch.no_grad():
        for name in capabilities(model) & {"log_prob", "encode"}:
            inputs = ["x"] + [model.conditioned_on] * (name == "log_prob" and bool(model.conditioned_on))
            here = getattr(model, name)(*(batch[key] for key in inputs))
            found = getattr(there, name)(*(moved[key] for key in inputs))
            assert found.device.type == "cuda"
            torch.testing.assert_close(found.cpu(), here, rtol=5e-3, atol=5e-3)
        if "encode" in capabilities(model) and "decode" in capabilities(model):
            assert there.decode(there.encode(moved["x"])).device.type == "cuda"
        for name in capabilities(model) & {"elbo"}:
            assert getattr(there, name)(moved["x"], condition(there, moved)).isfinite().all()


@EVERY
def test_model_trains_and_samples_on_cuda(case, tmp_path):
    torch.manual_seed(0)
    model = generative.build(case.model, **case.config)
    for _, metrics in generative.fit(model, case, steps=3, batch_size=16, device="cuda", keep="last", validation=0.0):
        assert all(np.isfinite(value) for key, value in metrics.items() if key.endswith("loss"))
    assert {parameter.device.type for parameter in model.parameters()} == {"cuda"}
    batch = {key: value.to("cuda") for key, value in case.sample(3, seeded(1)).items()}
    with torch.no_grad():
        if "sample" in capabilities(model):
            drawn = model.sample(3, condition(model, batch), generator=on_gpu())
            assert drawn.device.type == "cuda" and drawn.dtype == batch["x"].dtype
            assert torch.equal(drawn, model.sample(3, condition(model, batch), generator=on_gpu()))
            if "given" in inspect.signature(model.sample).parameters:
                kept = model.sample(
                    3, condition(model, batch), generator=on_gpu(), given=batch["x"], num_given=batch["x"][0].numel()
                )
                assert torch.equal(kept, batch["x"])
    generative.save(model, tmp_path / "model.safetensors")
    loaded = generative.load(tmp_path / "model.safetensors")
    assert all(torch.equal(value.cpu(), loaded.state_dict()[key]) for key, value in model.state_dict().items())


def test_fit_continues_on_cuda_to_the_bit():
    def fresh():
        torch.manual_seed(0)
        return generative.fitting.Fit(generative.build("vae", shape=(64,)), generative.source("digits"), **settings)

    settings = {"steps": 20, "batch_size": 32, "device": "cuda", "log_every": 10, "ema": 0.9, "keep": "last"}
    whole = fresh()
    states = [copy.deepcopy(whole.state_dict()) for _ in whole]
    second = fresh()
    second.load_state_dict(states[0])
    for _ in second:
        pass
    assert all(torch.equal(value, whole.model.state_dict()[key]) for key, value in second.model.state_dict().items())


def here(state):
    """A state with its tensors on the processor, which NumPy can compare."""
    if isinstance(state, dict):
        return {key: here(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [here(value) for value in state]
    return state.cpu() if isinstance(state, torch.Tensor) else state


def learned(name, steps, **config):
    env = make_vector(CARTPOLE, 4)
    agent = make_agent(name, env, seed=1, device="cuda", **{**SETTINGS.get(name, {}), **config})
    return agent, [(step, dict(metrics)) for step, metrics in agent.train(env, steps)]


@pytest.mark.parametrize("name", DEEP)
def test_agent_learns_on_cuda_the_same_twice(name, tmp_path):
    (one, first), (two, second) = learned(name, 3_000), learned(name, 3_000)
    assert json.dumps(first, default=float) == json.dumps(second, default=float)
    assert same_state(here(one.state_dict()), here(two.state_dict()))
    other = make_agent(name, make_vector(CARTPOLE, 4), seed=2, device="cuda", **SETTINGS.get(name, {}))
    other.load_state_dict(load_checkpoint(save_checkpoint(tmp_path, 1, one.state_dict(), keep=1)))
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    assert np.array_equal(one.predict(obs, deterministic=True)[0], other.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["dqn", "actor_critic"])
def test_agent_solves_cartpole_on_cuda(name, compiled):
    settings = {"dqn": {"prioritised": True}, "actor_critic": {}}[name]
    agent, _ = learned(name, {"dqn": 30_000, "actor_critic": 60_000}[name], compile=compiled, **settings)
    assert evaluate(agent, CARTPOLE, agent.spaces, episodes=20, seed=3)["mean_reward"] > 150


@pytest.mark.parametrize("mode", ["frozen", "finetune", "joint"])
def test_agent_sees_by_an_encoder_on_cuda(mode):
    env = make_vector(EnvironmentSpec("envs:Catch-v0", label="catch"), 4)
    torch.manual_seed(0)
    model = generative.build("vae", shape=env.single_observation_space.shape, latent=8, hidden=(16,))
    encoder = mpagents.Encoder(model, mode=mode).to("cuda")
    seen, given = (mpagents.EncodeObservation(env, encoder), None) if mode == "frozen" else (env, encoder)
    agent = make_agent("dqn", seen, seed=1, device="cuda", encoder=given, learning_starts=100)
    assert list(agent.train(seen, 1_000))[-1][0] == 1_000
