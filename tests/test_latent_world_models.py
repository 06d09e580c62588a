"""The latent world model and the diffusion world model: known dynamics, causality, actions, noise, resets and dreams."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium
import numpy as np
import pytest
import torch

import generative
from generative.continuous import LinearDynamicalSystem
from generative.recurrent.paths import previous_actions
from generative.world.latents import Categoricals, Gaussians, balanced_kl
from generative.world.protocol import WorldModel
from mpagents.agents.actor_critic import ActorCritic
from mpagents.agents.agent import Spaces
from mpagents.dream import Dream, encoded_action
from mpagents.torch_env import ArraySpec, TorchVectorEnv
from tests.walks import Walk, seen, told

TINY = {
    "world_model": {"embedding": 8, "memory": 8, "latent_size": 3, "classes": 4, "hidden": (8,)},
    "diffusion_world_model": {"embedding": 8, "hidden": (8,), "channels": (4, 8), "seen": (4,), "features": 6},
}
KINDS = pytest.mark.parametrize("kind", TINY)
FRAMES = pytest.mark.parametrize("frames", [True, False], ids=["frames", "vectors"])


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(kind: str, frames: bool = True, **config):
    """A model of walks whose weights are far from 0, so that what should matter does."""
    torch.manual_seed(1)
    shape = (8, 8, 1) if frames else (1,)
    model = generative.build(kind, shape=shape, action_size=2, **TINY[kind], **config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=seeded(parameter.numel())))
    return model.requires_grad_(False)


def fitted(kind: str, source, steps: int, **config):
    """A model after a few seconds of training."""
    torch.manual_seed(0)
    model = generative.build(kind, **config)
    settings = {"steps": steps, "batch_size": 32, "learning_rate": 1e-2, "max_grad_norm": 10.0, "validation": 0}
    for _ in generative.fit(model, source, **settings, device="cpu", keep="last"):
        pass
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def walked():
    """The latent model of walks that are seen as frames."""
    size = {"embedding": 32, "memory": 32, "latent_size": 3, "classes": 8, "hidden": (32,)}
    return fitted("world_model", Walk(num_steps=5), 400, shape=(8, 8, 1), action_size=2, **size)


@pytest.fixture(scope="module")
def denoised():
    """The diffusion model of walks that are seen as numbers."""
    size = {"embedding": 16, "features": 32, "hidden": (32, 32), "past": 1, "denoising": 4}
    return fitted("diffusion_world_model", Walk(num_steps=5, frames=False), 600, shape=(1,), action_size=2, **size)


@dataclass(frozen=True)
class Controlled:
    """A linear dynamical system whose actions stand beside what they led to, with the reward −x² and no end."""

    system: LinearDynamicalSystem

    def sample(self, n: int, generator: torch.Generator):
        batch = self.system.sample(n, generator)
        first = torch.zeros(batch["x"].shape[:2], dtype=torch.bool)
        first[:, 0] = True
        action = previous_actions(batch["action"], first, None)
        reward = -batch["x"].square().sum(-1)
        return {**batch, "action": action, "reward": reward, "terminated": torch.zeros_like(first), "first": first}


def test_categoricals_draw_as_often_as_they_say_and_temperature_sharpens():
    z = Categoricals(1, 3, uniform=0.0)
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    noise = torch.linspace(0, 1, 1001)[:-1, None]  # [1000, 1]
    often = [z.sample(logits.expand(1000, 3), noise, t).mean(0) for t in (1.0, 0.5, 0.0)]
    torch.testing.assert_close(often[0], torch.tensor([0.5, 0.3, 0.2]), atol=2e-3, rtol=0)
    torch.testing.assert_close(often[1], torch.tensor([0.25, 0.09, 0.04]) / 0.38, atol=2e-3, rtol=0)  # p² / Σ p²
    assert often[2].tolist() == [1, 0, 0]
    assert Gaussians(1).sample(torch.tensor([3.0, 0.0]), torch.tensor([0.9]), 0.0).item() == pytest.approx(3.0)


def test_categoricals_mix_in_the_uniform_and_their_kl_is_that_of_two_dice():
    z = Categoricals(2, 2, uniform=0.5)
    sure, even = torch.tensor([60.0, 0.0, 0.0, 0.0]), torch.zeros(4)  # (1, 0) becomes (3/4, 1/4)
    expected = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert z.kl(sure, even).item() == pytest.approx(expected, rel=1e-5)


def test_discrete_latents_pass_gradients_straight_through():
    z, logits = Categoricals(1, 3, uniform=0.0), torch.tensor([0.2, -0.1, 0.4], requires_grad=True)
    weight = torch.tensor([1.0, 2.0, 3.0])
    (z.sample(logits, torch.tensor([0.1])) * weight).sum().backward()
    p = logits.detach().softmax(0)
    torch.testing.assert_close(logits.grad, p * (weight - (p * weight).sum()))  # that of Σ p w


@pytest.mark.parametrize("latent", [Gaussians(2), Categoricals(2, 3)])
def test_balance_shares_out_the_gradient_and_free_nats_stop_it(latent):
    q, p = (torch.randn(latent.num_parameters, generator=seeded(s), requires_grad=True) for s in (1, 2))
    plain = torch.autograd.grad(balanced_kl(latent, q, p, None, 0.0), (q, p))
    value = balanced_kl(latent, q, p, 0.8, 0.0)
    shared = torch.autograd.grad(value, (q, p))
    assert value.item() == pytest.approx(latent.kl(q, p).item(), rel=1e-5)
    torch.testing.assert_close(shared, (0.2 * plain[0], 0.8 * plain[1]))
    free = balanced_kl(latent, q, p, None, 100.0)
    assert free.item() == 100 and not torch.autograd.grad(free, q)[0].any()


@KINDS
@FRAMES
def test_world_keeps_the_protocol_and_depends_on_nothing_but_its_noise(kind, frames):
    model = tiny(kind, frames)
    assert isinstance(model, WorldModel)
    x, action = Walk(frames=frames).sample(5, seeded())["x"][:, 0], torch.eye(2)[[0, 1, 0, 1, 0]]
    noise = torch.rand(5, model.num_noise, generator=seeded(1))
    state = model.begin(x)
    reached = model.imagine(state, action, noise)
    torch.manual_seed(7)
    again = model.imagine(state, action, noise)
    assert all(torch.equal(a, b) for a, b in zip((*reached[0], *reached[1:]), (*again[0], *again[1:])))
    assert ((reached[2] >= 0) & (reached[2] <= 1)).all() and reached[1].shape == reached[2].shape == (5,)
    other = model.imagine(state, action, torch.rand(5, model.num_noise, generator=seeded(2)))
    assert not torch.equal(model.features(other[0]), model.features(reached[0]))
    cold = [model.imagine(state, action, torch.rand(5, model.num_noise, generator=seeded(s)), 0.0)[0] for s in (3, 4)]
    assert torch.equal(model.features(cold[0]), model.features(cold[1]))
    turned = model.imagine(state, action.flip(1), noise)[0]
    assert not torch.equal(model.features(turned), model.features(reached[0]))
    assert model.observation(reached[0]).shape == x.shape and model.observation(reached[0]).dtype == x.dtype


@KINDS
@FRAMES
def test_filtering_step_by_step_is_the_posterior_and_sees_nothing_to_come(kind, frames):
    model, batch = tiny(kind, frames), Walk(num_steps=5, frames=frames).sample(4, seeded())
    batch["first"][1, 3] = True  # an episode begins within the sequence
    states, valid = model.posterior(batch)
    assert torch.equal(valid, batch["mask"] & ~batch["terminated"])
    state = model.begin(batch["x"][:, 0])
    for t in range(5):
        if t:
            state = model.filter(state, batch["action"][:, t], batch["x"][:, t], batch["first"][:, t])
        real = batch["mask"][:, t]
        torch.testing.assert_close(model.features(state)[real], model.features(tuple(s[:, t] for s in states))[real])
    fresh = model.begin(batch["x"][:, 3])
    torch.testing.assert_close(model.features(fresh)[1], model.features(tuple(s[:, 3] for s in states))[1])
    changed = {**batch, "x": batch["x"].clone()}
    changed["x"][:, 3:] = changed["x"][:, 3:].flip(0)
    other = model.posterior(changed)[0]
    for t, same in ((2, True), (3, False)):
        found = [model.features(tuple(s[:, t] for s in path)) for path in (states, other)]
        assert torch.equal(*found) == same


@KINDS
def test_padding_and_an_episodes_first_action_change_nothing(kind):
    model, batch = tiny(kind), Walk(num_steps=6).sample(16, seeded())
    assert not batch["mask"].all()
    other = {key: value.clone() for key, value in batch.items()}
    other["x"][~batch["mask"]] = 77
    other["reward"][~batch["mask"]] = 77.0
    other["action"][:, 0] = 77.0
    other["reward"][:, 0] = 77.0
    losses = [model.loss(data, generator=seeded())[0] for data in (batch, other)]
    assert torch.equal(*losses)
    batch["mask"][:, 2:] = False
    assert model.loss(batch, generator=seeded())[0] != losses[0]


def test_unseen_steps_cost_no_kl_and_tell_nothing_in_training_alone():
    """With every step but the first unseen, the path and its KL depend on the first observation only."""
    batch = Walk().sample(8, seeded())
    other = {**batch, "x": torch.cat([batch["x"][:, :1], batch["x"][:, 1:].flip(0)], 1)}
    for unseen, training, same in ((1 - 1e-6, True, True), (1 - 1e-6, False, False), (0.0, True, False)):
        model = tiny("world_model", unseen=unseen).train(training)
        kl = [model.loss(data, generator=seeded())[1]["kl"] for data in (batch, other)]
        assert torch.equal(*kl) == same
        assert kl[0] > 0


def test_diffusion_state_is_known_only_where_its_past_is():
    model = tiny("diffusion_world_model", past=2)
    batch = Walk(num_steps=4, late=True).sample(3, seeded())
    batch["first"][1, 2] = True
    (stack,), valid = model.posterior(batch)
    assert not valid[:, 0].any() and valid[2, 1]
    assert torch.equal(stack[0, 3], batch["x"][0, 2:4])
    assert torch.equal(stack[1, 2], batch["x"][1, [2, 2]])
    with pytest.raises(ValueError, match="no step follows 2 known ones"):
        model.loss({key: value[:1, :2] for key, value in batch.items()}, generator=seeded())


@FRAMES
def test_denoiser_is_told_the_states_features_and_shapes_them(frames):
    """Features that are other draw other observations; and what denoising lacks reaches the encoder by itself."""
    model = tiny("diffusion_world_model", frames)
    batch = Walk(num_steps=4, frames=frames).sample(8, seeded())
    state, noise = model.begin(batch["x"][:, 0]), torch.rand(8, model.num_noise, generator=seeded())
    drawn = model.observation(model.imagine(state, batch["action"][:, 1], noise)[0])
    with torch.no_grad():
        for parameter in model.outcome.parameters():
            parameter.zero_()  # neither reward nor end can move the encoder
    model.encoder.requires_grad_(True)
    model.loss(batch, generator=seeded())[0].backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.encoder.parameters())
    with model.encoder.register_forward_hook(lambda module, given, features: features + 1):
        assert not torch.equal(drawn, model.observation(model.imagine(state, batch["action"][:, 1], noise)[0]))


def test_world_model_predicts_a_controlled_system_as_it_is():
    """E[x_{t+k}] of the true system after actions, from a state with little doubt; and the bound is below the likelihood."""
    system = LinearDynamicalSystem(((0.9,),), ((1.0,),), ((0.8,),), state_std=0.05, emission_std=0.05, num_steps=6)
    source, size = Controlled(system), {"memory": 16, "embedding": 16, "hidden": (16,), "latent_size": 2}
    settings = {**size, "shape": (1,), "action_size": 1, "latent": "gaussian", "balance": None, "reward_scale": 1.0}
    model = fitted("world_model", source, 300, **settings)
    batch = source.sample(200, seeded(5))
    state, known = model.begin(batch["x"][:, 0]), batch["x"][:, 0]
    for t in range(1, 6):
        state, _, _ = model.imagine(state, batch["action"][:, t], torch.rand(200, model.num_noise), 0.0)
        known = known * 0.9 + batch["action"][:, t] * 0.8
        assert (model.observation(state) - known).square().mean() < 0.05 * known.square().mean()
    taken = torch.cat([batch["action"][:, 1:], torch.zeros_like(batch["action"][:, :1])], 1)
    gap = system.log_prob(batch["x"], taken).mean() - model.elbo(batch["x"], batch["action"]).mean()
    assert 0 < gap < 5


@pytest.mark.parametrize("name", ["walked", "denoised"])
def test_trained_world_goes_where_the_action_says_and_pays_and_ends_there(name, request):
    model = request.getfixturevalue(name)
    frames = model.form.is_frames
    place, action = torch.tensor([1, 3, 4, 6]).repeat_interleave(2), torch.tensor([0, 1]).repeat(4)
    before = place + torch.tensor([1, 1, 1, 1, -1, -1, -1, -1])  # from 2 and 4 to the left, from 3 and 5 to the right
    state = model.begin(seen(before, frames))
    led, no = torch.eye(2)[(place > before).long()], torch.zeros(8, dtype=torch.bool)
    state = model.filter(state, led, seen(place, frames), no)
    noise = torch.rand(8, model.num_noise, generator=seeded())
    reached, reward, end = model.imagine(state, torch.eye(2)[action], noise, 0.5)
    expected = place + 2 * action - 1
    torch.testing.assert_close(told(model.observation(reached)).float(), expected.float(), atol=0.35, rtol=0)
    torch.testing.assert_close(reward, expected / 7, atol=0.15, rtol=0)
    assert (end > 0.5).tolist() == [place in (0, 7) for place in expected.tolist()]


@KINDS
@pytest.mark.parametrize("observes", ["observation", "features"])
def test_any_agent_trains_in_a_dream(kind, observes):
    model = tiny(kind)
    states, valid = model.posterior(Walk().sample(20, seeded()))
    dream = Dream(model, tuple(part[valid] for part in states), ArraySpec(num=2), horizon=7, observes=observes)
    env = TorchVectorEnv(dream, 4)
    agent = ActorCritic(
        ActorCritic.Config(num_envs=4, rollout_steps=8, epochs=2, compile=False, hidden_sizes=(8,)),
        Spaces(env.single_observation_space, env.single_action_space), seed=0,
    )  # fmt: skip
    before = agent.parameters.clone()
    steps = [step for step, _ in agent.train(env, 96)]
    assert steps[-1] == 96 and agent.parameters.isfinite().all() and not torch.equal(before, agent.parameters)
    assert [picture.shape for picture in env.render()] == [(8, 8, 3)] * 4
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"call env\.reset"):
        TorchVectorEnv(dream, 4).render()


def test_actor_critic_learns_in_a_dream_what_holds_awake(walked):
    """Rewards grow to the right, and 7 ends: the best policy walks right, then to and fro, for an end forgoes what follows."""
    states, valid = walked.posterior(Walk(num_steps=5).sample(200, seeded(3)))
    dream = Dream(walked, tuple(part[valid] for part in states), ArraySpec(num=2), horizon=8, observes="features")
    env = TorchVectorEnv(dream, 32)
    config = ActorCritic.Config(num_envs=32, rollout_steps=8, epochs=4, compile=False, normalise_rewards=False)
    agent = ActorCritic(config, Spaces(env.single_observation_space, env.single_action_space, 0.9), seed=0)
    for _ in agent.train(env, 8_000):
        pass
    place = torch.arange(2, 6)
    state = walked.begin(seen(place))
    for _ in range(2):
        action = torch.as_tensor(agent.predict(walked.features(state).numpy(), deterministic=True)[0])
        place = (place + 2 * action - 1).clamp(0, 7)
        state = walked.filter(state, encoded_action(action, 2), seen(place), torch.zeros(4, dtype=torch.bool))
    assert place.tolist() == [4, 5, 6, 5]
