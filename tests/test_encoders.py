"""Encoders: what they see, codes of every family, states in time, environments and agents around them, gradients, resuming."""

from __future__ import annotations

import copy
import math

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import generative
import mpagents
from mpagents.deep.auxiliary import encoding_parameters
from mpagents.deep.optimisers import value_and_gradient
from mpagents.deep.replay import leaves_of
from mpagents.encoder_input import as_recorded
from mpagents.encoder_pictures import reconstructions
from mpagents.encoders import Encoder
from mpagents.encoding import EncodedAgent, EncodeObservation
from mpagents.snapshot import restore, snapshot

torch.set_num_threads(1)
SHAPE = (16, 16, 1)
MODES = pytest.mark.parametrize("autoreset", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP], ids=str)
FAMILIES = {
    "autoencoder": {"latent": 3, "hidden": (8,)},
    "vae": {"latent": 3, "hidden": (8,)},
    "glow": {"num_steps": 1, "hidden": 4},
    "real_nvp": {"hidden": 4},
    "diffusion": {"channels": (4, 8), "embedding": 8, "num_steps": 10},
    "gan": {"hidden": (8,), "features": 5},
    "clip": {"hidden": (8,), "embedding": 4, "text_width": 8, "num_heads": 1, "num_layers": 1},
    "classifier": {"num_classes": 3, "hidden_sizes": (8,), "network": "mlp"},
    "segmenter": {"num_classes": 2, "channels": (2, 4)},
    "pixel_cnn": {"hidden": 3, "num_layers": 1, "first_kernel": 3, "levels": 256, "head": "logistic_mixture"},
}
LABELLED = {name: {"shape": (16, 16, 1), **FAMILIES[name]} for name in ("classifier", "segmenter", "clip")}
LABELLED["cnn"] = {"shape": (16, 16, 1), "out_features": 2, "channels": (2,), "hidden_sizes": (4,), "head": "gaussian"}
RECURRENT = {
    "lstm": {"size": 4, "head": "gaussian", "hidden": 5},
    "elman_rnn": {"size": 4, "head": "gaussian", "hidden": 5},
    "transformer": {"size": 4, "head": "gaussian", "width": 8, "num_heads": 2, "num_layers": 1, "context": 6},
    "vrnn": {"in_features": 4, "latent": 2, "hidden": 5, "hidden_sizes": (6,)},
}


def built(name, **config):
    torch.manual_seed(0)
    return generative.build(name, **config)


def frames_model(name="vae"):
    if name == "pixel_cnn":
        return built(name, height=16, width=16, channels=1, **FAMILIES[name])
    return built(name, shape=SHAPE, **FAMILIES[name])


def frames(n, seed=0):
    return torch.randint(0, 256, (n, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def catch(num_envs=3, same_step=True):
    if same_step:
        return gym.make_vec("envs:Catch-v0", num_envs=num_envs, size=16, vectorization_mode="vector_entry_point")
    return SyncVectorEnv([lambda: gym.make("envs:Catch-v0", size=16)] * num_envs)


@pytest.mark.parametrize("name", FAMILIES)
def test_frozen_codes_are_the_models_own_standardised_in_every_layout(name):
    encoder, x = Encoder(frames_model(name)), frames(40)
    encoder.measure([x])
    codes, state = encoder(x)
    raw = encoder.model.encode(x).float()
    assert codes.shape == (40, encoder.out_features) and state is None and not codes.requires_grad
    assert torch.allclose(codes, (raw - encoder.mean) / encoder.std, atol=1e-5)
    assert codes.mean(0).abs().max() < 1e-3 and codes.std(0, correction=0).max() < 1.001
    largest = raw.std(0, correction=0).max()
    assert torch.allclose(encoder.std, raw.std(0, correction=0).clamp(min=float(0.01 * largest)), rtol=1e-3)
    assert torch.equal(encoder(x.movedim(-1, 1))[0], codes)  # stacked first
    assert torch.equal(encoder(x[..., 0])[0], codes)  # grey
    assert torch.equal(encoder.train()(x)[0], codes)  # never in training mode


def test_observations_become_data_as_recorded_by_hand():
    stacked = torch.arange(2 * 3 * 5 * 5).reshape(2, 3, 5, 5).to(torch.uint8)
    assert torch.equal(as_recorded(stacked, (5, 5, 3)), stacked.permute(0, 2, 3, 1))
    colours = torch.arange(2 * 2 * 4 * 4 * 3).reshape(2, 2, 4, 4, 3).to(torch.uint8)
    both = as_recorded(colours, (4, 4, 6))
    assert torch.equal(both[..., :3], colours[:, 0]) and torch.equal(both[..., 3:], colours[:, 1])  # the oldest first
    pixel = torch.tensor([255, 0, 0, 0, 255, 0], dtype=torch.uint8).reshape(1, 1, 2, 3)
    assert as_recorded(pixel, (1, 2, 1), grey=True).flatten().tolist() == [76, 150]  # 0.299 · 255, 0.587 · 255
    halves = torch.zeros(1, 8, 8, dtype=torch.uint8)
    halves[:, :, 4:] = 200
    small = as_recorded(halves, (2, 2, 1), size=(2, 2))[0, :, :, 0]
    assert small[0, 0] + small[0, 1] == 200 and small[0, 1] > 160  # a mean of all that a pixel covers
    assert as_recorded(torch.full((2, 8, 8), 255, dtype=torch.uint8), (64,)).tolist() == [[1.0] * 64] * 2
    for codes in ((9,), (7, 7, 3)):  # bytes that are no picture: as a recording has them
        given = torch.full((2, *codes), 255, dtype=torch.uint8)
        assert as_recorded(given, (math.prod(codes),)).tolist() == [[255.0] * math.prod(codes)] * 2
    grey = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    grey[:, 0] = 255
    assert torch.equal(as_recorded(grey, (16, 16, 3), grey=True)[0, 0, 0], torch.tensor([255, 0, 0], dtype=torch.uint8))
    assert as_recorded(torch.tensor([[1.5, 2.0]], dtype=torch.float64), (2,)).dtype == torch.float32


@pytest.mark.parametrize(
    ("obs", "settings", "message"),
    [
        (np.zeros((1, 20, 20, 1), np.uint8), {}, r"observation is \[20, 20, 1\]; the encoder takes \[16, 16, 1\]: set size"),
        (np.zeros((1, 16, 16, 3), np.uint8), {}, "set grey: true"),
        (np.zeros((1, 2, 16, 16), np.uint8), {}, "stack or choose frames so that they have 1 channels"),
        (np.zeros((1, 16, 16, 1), np.float32), {}, "expected uint8 frames"),
        (np.zeros((1, 20, 20, 1), np.uint8), {"size": (18, 18)}, r"takes \[16, 16, 1\]: set size: \[16, 16\]"),
    ],
)
def test_what_an_encoder_cannot_see_is_refused_with_the_fix(obs, settings, message):
    with pytest.raises(ValueError, match=message):
        Encoder(frames_model(), **settings)(torch.from_numpy(obs))


def test_a_file_holds_model_settings_and_moments_and_damage_is_found(tmp_path):
    encoder = Encoder(frames_model(), coefficient=0.5, grey=True)
    encoder.measure([frames(20)])
    encoder.save(tmp_path / "encoder.safetensors")
    loaded, x = Encoder.load(tmp_path / "encoder.safetensors"), frames(5, seed=1)
    assert loaded.settings == encoder.settings and torch.equal(loaded(x)[0], encoder(x)[0])
    assert torch.equal(generative.load(tmp_path / "encoder.safetensors").encode(x), encoder.model.encode(x))
    changed = Encoder.load(tmp_path / "encoder.safetensors", mode="finetune")
    assert changed.mode == "finetune" and torch.equal(changed(x)[0], encoder(x)[0])
    raw = (tmp_path / "encoder.safetensors").read_bytes()
    (tmp_path / "damaged.safetensors").write_bytes(raw.replace(b'\\"coefficient\\": 0.5', b'\\"coefficient\\": 0.7'))
    with pytest.raises(ValueError, match="damaged or was altered"):
        Encoder.load(tmp_path / "damaged.safetensors")
    generative.save(frames_model("diffusion"), tmp_path / "diffusion.safetensors")
    near, far = (Encoder.load(tmp_path / "diffusion.safetensors", feature_level=level) for level in (0.1, 0.9))
    assert not torch.allclose(near(x)[0], far(x)[0])
    near.measure([x])
    near.save(tmp_path / "measured.safetensors")
    same, other = (Encoder.load(tmp_path / "measured.safetensors", feature_level=level) for level in (0.1, 0.9))
    assert torch.equal(same.std, near.std) and (other.std == 1).all()  # moments are of the codes that were measured
    with pytest.raises(ValueError, match="feature_level: of diffusions alone"):
        Encoder.load(tmp_path / "encoder.safetensors", feature_level=0.1)


def test_measure_takes_data_as_recorded_also_where_codes_have_as_many_numbers():
    torch.manual_seed(0)
    encoder, x = Encoder(built("nice", shape=(3,))), torch.randn(200, 3) * 4 + 5
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    encoder.measure([x[:150], x[150:]])
    codes = encoder(x)[0]
    torch.testing.assert_close(codes.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(codes.std(0, correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_the_coarsest_code_of_a_flow_is_what_left_last():
    model = built("real_nvp", shape=SHAPE, num_scales=3, num_couplings=2, hidden=4)
    encoder, x = Encoder(model, coarsest=True), frames(2)
    assert encoder.out_features == 16 * 16 // 4
    assert torch.equal(encoder(x)[0], model.encode(x)[:, :64])
    with pytest.raises(ValueError, match="coarsest is of flows"):
        Encoder(frames_model("vae"), coarsest=True)


def test_encoded_environments_pass_both_checkers_and_one_is_as_many(tmp_path):
    from stable_baselines3.common.env_checker import check_env as check_by_sb3

    encoder = Encoder(frames_model())
    encoder.save(tmp_path / "vae.safetensors")
    env = EncodeObservation(gym.make("envs:Catch-v0", size=16), tmp_path / "vae.safetensors")
    check_env(env)
    check_by_sb3(env)
    assert env.observation_space == gym.spaces.Box(-np.inf, np.inf, (3,), np.float32)
    many = EncodeObservation(catch(1), encoder)
    (one, _), (both, _) = env.reset(seed=3), many.reset(seed=3)
    for _ in range(15):
        np.testing.assert_allclose(one, both[0], rtol=1e-5, atol=1e-6)
        one, both = env.step(2)[0], many.step(np.array([2]))[0]


@pytest.mark.parametrize("same_step", [True, False])
def test_codes_along_episodes_are_those_of_the_plain_environment_final_ones_too(same_step):
    encoder = Encoder(frames_model())
    plain, env = catch(3, same_step), EncodeObservation(catch(3, same_step), encoder)
    seen, codes, ends = plain.reset(seed=0)[0], env.reset(seed=0)[0], 0
    calls = []
    env.encoder.register_forward_hook(lambda *_: calls.append(1))
    for _ in range(40):
        np.testing.assert_allclose(codes, encoder(seen)[0], rtol=1e-4, atol=1e-5)
        assert codes in env.observation_space
        action = np.array([0, 1, 2])
        seen, _, terminated, _, told = plain.step(action)
        calls.clear()
        codes, _, _, _, infos = env.step(action)
        assert len(calls) == 1  # of all that is seen, last observations of episodes with it
        for i in np.flatnonzero(terminated) if same_step else ():
            expected = encoder(torch.from_numpy(told["final_obs"][i][None]))[0][0]
            np.testing.assert_allclose(infos["final_obs"][i], expected, rtol=1e-4, atol=1e-5)
            ends += 1
    assert ends == (6 if same_step else 0)


def test_of_a_dict_the_entry_becomes_its_code_and_the_others_stay():
    class Both(gym.Env):
        observation_space = gym.spaces.Dict({"eye": gym.spaces.Box(0, 255, SHAPE, np.uint8), "touch": gym.spaces.Discrete(3)})
        action_space = gym.spaces.Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return {"eye": np.full(SHAPE, 7, np.uint8), "touch": 2}, {}

        def step(self, action):
            return self.reset()[0], 1.0, bool(self.np_random.random() < 0.3), False, {}

    encoder = Encoder(frames_model(), key="eye")
    env = EncodeObservation(Both(), encoder)
    seen, _ = env.reset(seed=0)
    assert seen["touch"] == 2 and seen["eye"].shape == (3,) and seen in env.observation_space
    vector = EncodeObservation(SyncVectorEnv([Both] * 2, autoreset_mode=AutoresetMode.SAME_STEP), encoder)
    for encoded, learned in ((vector, None), (vector.env, Encoder(frames_model(), key="eye", mode="joint"))):
        agent = mpagents.make_agent("dqn", encoded, learning_starts=20, encoder=learned, num_envs=2)
        assert [step for step, _ in agent.train(encoded, 100)][-1] == 100
    assert agent.codec.vector_size == 3 + 3
    with pytest.raises(ValueError, match="has the entries eye, touch; set `key`"):
        EncodeObservation(Both(), Encoder(frames_model()))


def walked(env, encoder, steps=60):
    """(codes, those of running the model over each episode from its start) along a CartPole of short episodes."""
    mode = env.metadata["autoreset_mode"]
    plain = SyncVectorEnv([lambda: gym.make("CartPole-v1", max_episode_steps=7)] * 2, autoreset_mode=mode)

    def alone(*episode):
        return encoder.model.encode(torch.from_numpy(np.stack(episode))[None])[0].detach().numpy()

    seen, codes = plain.reset(seed=0)[0], env.reset(seed=0)[0]
    episodes = [[row] for row in seen]
    pending = np.zeros(2, bool)  # NEXT_STEP: whose next step only resets
    for _ in range(steps):
        yield from ((codes[i], alone(*episodes[i])) for i in range(2))
        seen, _, terminated, truncated, told = plain.step(np.ones(2, int))
        codes, _, _, _, infos = env.step(np.ones(2, int))
        ended = terminated | truncated
        begun = ended if env.same_step else pending
        for i in np.flatnonzero(ended) if env.same_step else ():
            yield infos["final_obs"][i], alone(*episodes[i], told["final_obs"][i])
        episodes = [[row] if new else [*before, row] for row, new, before in zip(seen, begun, episodes)]
        pending = ended & ~pending


@MODES
@pytest.mark.parametrize("name", RECURRENT)
def test_a_recurrent_encoder_remembers_its_episode_and_nothing_before_it(name, autoreset):
    encoder = Encoder(built(name, **RECURRENT[name]))
    made = [lambda: gym.make("CartPole-v1", max_episode_steps=7)] * 2
    env = EncodeObservation(SyncVectorEnv(made, autoreset_mode=autoreset), encoder)
    for code, expected in walked(env, encoder):
        np.testing.assert_allclose(code, expected, rtol=2e-4, atol=2e-5)
    assert encoder.recurrent and env.memory is not None


@MODES
def test_an_encoded_environment_goes_on_to_the_bit_from_a_snapshot(autoreset):
    def made():
        inner = SyncVectorEnv([lambda: gym.make("CartPole-v1", max_episode_steps=9)] * 2, autoreset_mode=autoreset)
        return EncodeObservation(inner, Encoder(built("lstm", **RECURRENT["lstm"])))

    env, again = made(), made()
    assert snapshot(env) is None
    env.reset(seed=1)
    for _ in range(12):
        env.step(np.ones(2, int))
    saved = copy.deepcopy(snapshot(env))
    expected = [env.step(np.ones(2, int))[0] for _ in range(20)]
    restore(again, saved)
    assert again.restored
    for codes in expected:
        np.testing.assert_array_equal(again.step(np.ones(2, int))[0], codes)


def test_a_masked_reset_leaves_the_memory_of_the_others():
    encoder = Encoder(built("lstm", **RECURRENT["lstm"]))
    env = EncodeObservation(SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2), encoder)
    env.reset(seed=0)
    codes = env.step(np.ones(2, int))[0]
    memory = env.memory
    after, _ = env.reset(options={"reset_mask": np.array([True, False])})
    assert np.array_equal(after[1], codes[1]) and not np.array_equal(after[0], codes[0])
    assert torch.equal(env.memory[0][1], memory[0][1])


def test_a_masked_reset_of_a_world_of_ours_leaves_the_others_where_they_stand():
    env = EncodeObservation(catch(3), Encoder(frames_model()))
    env.reset(seed=0)
    for _ in range(4):
        codes = env.step(np.ones(3, int))[0]
    seen, elapsed = env.seen, env.unwrapped.walk.elapsed
    after, _ = env.reset(options={"reset_mask": np.array([False, True, False])})
    assert elapsed.tolist() == [4, 4, 4] and env.unwrapped.walk.elapsed.tolist() == [4, 0, 4]
    assert np.array_equal(env.seen[::2], seen[::2]) and not np.array_equal(env.seen[1], seen[1])
    assert np.array_equal(after[::2], codes[::2])
    np.testing.assert_allclose(after, env.encoder(env.seen)[0], atol=1e-6)
    with pytest.raises(ValueError, match=r"reset_mask is int64 \[2\]; expected bool \[3\]"):
        env.reset(options={"reset_mask": np.array([1, 0])})


def test_a_segmenter_s_code_is_what_it_is_told_to_be():
    x = torch.zeros(2, *SHAPE, dtype=torch.uint8)
    model = built("segmenter", shape=SHAPE, num_classes=3, channels=(2, 4), code="logits")
    assert torch.equal(model.encode(x), model(x).flatten(1)) and model.encode(x).shape[1] == 3 * SHAPE[0] * SHAPE[1]
    with pytest.raises(ValueError, match="'features' or 'logits'"):
        built("segmenter", shape=SHAPE, num_classes=3, code="classes")


def test_an_agent_of_codes_plays_by_observations_as_the_environment_gives_them():
    encoder = Encoder(built("lstm", **RECURRENT["lstm"]))
    env = SyncVectorEnv([lambda: gym.make("CartPole-v1", max_episode_steps=9)] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    encoded = EncodeObservation(env, encoder)
    agent = mpagents.make_agent("actor_critic", encoded, num_envs=2, recurrent=4)
    player, state, own = EncodedAgent(agent, encoder), None, None
    codes, _ = encoded.reset(seed=0)
    seen, first = encoded.seen, np.ones(2, bool)
    for _ in range(30):
        action, state = player.predict(seen, state, first, deterministic=True)
        expected, own = agent.predict(codes, own, first, deterministic=True)
        np.testing.assert_array_equal(action, expected)
        codes, _, terminated, truncated, _ = encoded.step(action)
        seen, first = encoded.seen, terminated | truncated


def learner(name, mode="joint", **settings):
    """(agent, environment) whose encoder learns."""
    config = {
        "dqn": {"num_envs": 2, "learning_starts": 40, "batch_size": 16, "log_every": 50},
        "actor_critic": {"num_envs": 2, "epochs": 2, "rollout_steps": 16, "log_every": 50},
        "reinforce": {"num_envs": 2, "episodes": 2},
    }
    env = catch(2)
    encoder = Encoder(frames_model(), mode=mode, **settings)
    return mpagents.make_agent(name, env, encoder=encoder, **config[name]), env


def gradient_of(name, mode, **settings):
    """(agent, the gradient of its loss on the same experience, of the auxiliary loss alone)."""
    agent, env = learner(name, mode, **settings)
    start = agent.parameters.clone()
    last = [steps for steps, _ in agent.train(env, 80)][-1]
    assert last >= 80
    agent.parameters.copy_(start)
    if name == "dqn":
        agent.target.copy_(start + 0.01)
        batch = agent.replay.gather(np.array([3, 5, 8, 13, 21]))
        obs = leaves_of(batch, "obs.")
        total = value_and_gradient(agent.loss, agent.parameters, agent.target, batch)[2]
    else:
        from mpagents.deep.rollout import Rollout

        rollout = Rollout(agent.collector, 16, agent.head.empty(2))
        generator = torch.Generator().manual_seed(0)
        rollout.fill(agent.collector, agent.acting, (), agent.head.noise((16, 2), generator), 10**6)
        batch = rollout.tensors()
        rng = np.random.default_rng(0)
        batch["obs"][""] = torch.from_numpy(rng.integers(0, 256, (16, 2, *SHAPE), np.uint8))
        batch["next_obs"][""] = torch.from_numpy(rng.integers(0, 256, (16, 2, *SHAPE), np.uint8))
        batch["action"], batch["reward"] = torch.arange(32).reshape(16, 2) % 3, torch.ones(16, 2)
        obs = batch["obs"]
        total = value_and_gradient(agent.loss, agent.parameters, batch, ())[2]
    alone = None
    if mode == "joint":
        agent.auxiliary.generator.manual_seed(0)
        alone = value_and_gradient(lambda p: (agent.auxiliary(p, obs), None), agent.parameters)[2]
    return agent, total, alone


def parts(agent):
    """Masks over the parameters: those that encode, the model's others, the agent's own."""
    encodes = encoding_parameters(agent.flat, agent.codec.encoder)
    within = set(agent.codec.encoder.model.modules())
    model = torch.cat([torch.full((n,), part in within) for (part, _), n in zip(agent.flat.places, agent.flat.sizes)])
    return encodes, model & ~encodes, ~model


@pytest.mark.parametrize("name", ["dqn", "actor_critic"])
def test_gradients_reach_the_encoder_as_each_mode_says(name):
    agent, finetuned, _ = gradient_of(name, "finetune")
    encodes, decodes, own = parts(agent)
    assert finetuned[encodes].abs().max() > 0 and finetuned[own].abs().max() > 0
    assert not finetuned[decodes].any()
    _, both, _ = gradient_of(name, "joint")
    assert both[decodes].abs().max() > 0 and not torch.allclose(both[encodes], finetuned[encodes])
    _, only_own, alone = gradient_of(name, "joint", gradient="reconstruction")
    assert alone[encodes].abs().max() > 0 and not alone[own].any()
    assert only_own[own].abs().max() > 0 and only_own[encodes].abs().max() > 0
    _, only_agents, alone = gradient_of(name, "joint", gradient="agent")
    assert not alone[encodes].any() and alone[decodes].abs().max() > 0
    assert torch.allclose(only_agents[encodes], finetuned[encodes], rtol=1e-4, atol=1e-7)


def test_the_agents_gradient_stops_at_codes_that_only_reconstruction_trains():
    agent, env = learner("dqn", "joint", gradient="reconstruction", coefficient=0.0)
    encodes, decodes, own = parts(agent)
    before = agent.parameters.clone()
    list(agent.train(env, 100))
    assert torch.equal(agent.parameters[encodes | decodes], before[encodes | decodes])
    assert not torch.equal(agent.parameters[own], before[own])


def test_the_auxiliary_loss_is_the_models_own_for_each_dimension():
    agent, _ = learner("dqn", "joint", coefficient=3.0)
    x, encoder = frames(8), agent.codec.encoder
    agent.auxiliary.generator.manual_seed(5)
    found = agent.auxiliary(agent.parameters, {"": x})
    expected = encoder.model.loss({"x": x}, generator=torch.Generator().manual_seed(5))[0]
    assert math.isclose(float(found), 3.0 * float(expected) / 256, rel_tol=1e-5)
    assert math.isclose(float(agent.auxiliary.metrics()["model/loss"]), float(expected), rel_tol=1e-5)


@pytest.mark.parametrize("name", ["dqn", "actor_critic", "reinforce"])
def test_an_agent_with_its_encoder_goes_on_to_the_bit(name):
    agent, env = learner(name)
    given = {key: value.clone() for key, value in frames_model().state_dict().items()}
    for steps, _ in agent.train(env, 400):
        if steps >= 150:
            break
    saved, stands = copy.deepcopy(agent.state_dict()), copy.deepcopy(snapshot(env))
    told = [metrics for _, metrics in agent.train(env, 400)]
    assert {key for key in told[-1] if key.startswith("model/")} == {"model/loss"}
    again, env = learner(name)
    again.load_state_dict(saved)
    restore(env, stands)
    list(again.train(env, 400))
    assert torch.equal(agent.parameters, again.parameters)
    learned = agent.codec.encoder.model.state_dict()
    assert any(not torch.equal(learned[key], value) for key, value in given.items())
    shown = reconstructions(agent, env)["encoder/reconstructions"]
    assert shown.dtype == np.uint8 and shown.shape[2] == 1


def test_agents_that_cannot_learn_an_encoder_and_models_that_cannot_be_learned_are_refused_by_name():
    lake = gym.make_vec("FrozenLake-v1", num_envs=1, vectorization_mode="sync")
    with pytest.raises(ValueError, match="q_learning can't learn an encoder in mode 'finetune'; expected frozen"):
        mpagents.make_agent("q_learning", lake, encoder=Encoder(frames_model(), mode="finetune"))
    with pytest.raises(ValueError, match="sb3 can't learn an encoder in mode 'joint'; expected frozen or finetune"):
        mpagents.make_agent("sb3", catch(1), encoder=Encoder(frames_model(), mode="joint"))
    with pytest.raises(ValueError, match=r"stands around the environment: make_agent\(name, EncodeObservation"):
        mpagents.make_agent("dqn", catch(1), encoder=Encoder(frames_model()))
    with pytest.raises(ValueError, match="Discrete"):
        mpagents.make_agent("q_learning", EncodeObservation(catch(1), Encoder(frames_model())))
    with pytest.raises(ValueError, match="part of an agent's network"):
        EncodeObservation(catch(1), Encoder(frames_model(), mode="finetune"))
    with pytest.raises(ValueError, match="an encoder takes a Box"):
        EncodeObservation(lake, Encoder(frames_model()))
    with pytest.raises(ValueError, match="is a single environment; expected a vector one"):
        mpagents.make_agent("dqn", gym.make("CartPole-v1"))
    latent = {"autoencoder": "vae", "autoencoder_config": {"shape": SHAPE, "latent": 2, "hidden": (4,)}}
    for name, config, mode, message in [
        ("latent_diffusion", {**latent, "diffusion": {"hidden": (8,)}}, "finetune", "no gradient goes through its codes"),
        ("lstm", RECURRENT["lstm"], "finetune", "recurrent models learn before the agent does"),
        ("gan", {"shape": SHAPE, "hidden": (4,)}, "joint", "its players minimise losses of their own"),
        ("vae", {"shape": SHAPE, "hidden": (4,), "num_classes": 2}, "joint", "its loss needs more than observations"),
        *((name, config, "joint", "its loss needs more than observations") for name, config in LABELLED.items()),
        ("glow", {"shape": SHAPE, "num_steps": 1, "num_classes": 2}, "frozen", "has no `encode`"),
        ("world_model", {"shape": SHAPE, "action_size": 2}, "frozen", "WorldModel is a world model"),
    ]:
        with pytest.raises(ValueError, match=message):
            Encoder(built(name, **config), mode=mode)
    with pytest.raises(ValueError, match=r"encoder: unknown key 'mod'; did you mean 'mode'\?"):
        Encoder(frames_model(), mod="frozen")


def test_a_replay_holds_codes_of_a_frozen_encoder_and_frames_of_one_that_learns():
    settings = {"num_envs": 2, "learning_starts": 40, "compile": False}
    env = EncodeObservation(catch(2), Encoder(frames_model()))
    frozen = mpagents.make_agent("dqn", env, **settings)
    learning = mpagents.make_agent("dqn", catch(2), encoder=Encoder(frames_model(), mode="finetune"), **settings)
    list(frozen.train(env, 60)), list(learning.train(catch(2), 60))
    (codes,), (x,) = frozen.replay.rings.values(), learning.replay.rings.values()
    assert codes.dtype == np.float32 and codes.shape[1:] == (3,)
    assert x.dtype == np.uint8 and math.prod(x.shape[1:]) == math.prod(SHAPE)


def test_normalised_observations_leave_what_the_encoder_sees():
    env = gym.make_vec("CartPole-v1", num_envs=2, vectorization_mode="sync")
    encoder = Encoder(built("vae", shape=(4,), latent=2, hidden=(4,)), mode="finetune")
    agent = mpagents.make_agent("actor_critic", env, encoder=encoder, num_envs=2, normalise_observations=True)
    list(agent.train(env, 200))
    assert agent.scale.moments == {}


@pytest.mark.parametrize("mode", ["frozen", "finetune"])
def test_stable_baselines3_takes_the_encoder_as_its_extractor(mode, tmp_path):
    from stable_baselines3 import DQN, PPO

    encoder = Encoder(frames_model())
    encoder.measure([frames(20)])
    encoder.save(tmp_path / "vae.safetensors")
    given = {key: value.clone() for key, value in encoder.model.state_dict().items()}
    keywords = {"encoder": str(tmp_path / "vae.safetensors"), "mode": mode}
    policy = {"features_extractor_class": mpagents.EncoderExtractor, "features_extractor_kwargs": keywords}
    ppo = PPO("CnnPolicy", gym.make("envs:Catch-v0", size=16), n_steps=32, n_epochs=1, policy_kwargs=policy, device="cpu")
    extractor, x = ppo.policy.features_extractor, frames(4)
    seen, _ = ppo.policy.obs_to_tensor(x.movedim(-1, 1).numpy())  # as Stable-Baselines3 transposes them
    features = ppo.policy.extract_features(seen)
    assert torch.allclose(features, encoder(x)[0], atol=1e-6)  # orthogonal initialisation has left it alone
    ppo.learn(64)
    learned = extractor.encoder.model.state_dict()
    assert any(not torch.equal(learned[key], value) for key, value in given.items()) == (mode == "finetune")
    keywords["encoder"] = encoder
    dqn = DQN("CnnPolicy", gym.make("envs:Catch-v0", size=16), buffer_size=10, policy_kwargs=policy, device="cpu")
    online, target = dqn.q_net.features_extractor.encoder, dqn.q_net_target.features_extractor.encoder
    assert online is not target is not encoder


def test_the_agent_sb3_learns_an_encoder_that_is_part_of_its_checkpoint():
    env, given = catch(1), frames_model().state_dict()
    settings = {"n_steps": 32, "n_epochs": 1, "batch_size": 32}
    config = {"encoder": Encoder(frames_model(), mode="finetune"), "settings": settings, "log_every": 64, "device": "cpu"}
    agent, again = (mpagents.make_agent("sb3", env, **config) for _ in range(2))
    list(agent.train(env, 64))
    learned = agent.model.policy.features_extractor.encoder.model.state_dict()
    assert any(not torch.equal(learned[key], value) for key, value in given.items())
    again.load_state_dict(agent.state_dict())
    kept = again.model.policy.features_extractor.encoder.model.state_dict()
    assert all(torch.equal(kept[key], value) for key, value in learned.items())


class Nested(gym.Env):
    observation_space = gym.spaces.Dict(
        camera=gym.spaces.Box(-1, 1, (4,)), joints=gym.spaces.Dict(arm=gym.spaces.Box(-1, 1, (2,)))
    )
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.steps += 1
        return self.observation_space.sample(), 0.0, self.steps == 3, False, {}


def test_what_stands_beside_the_encoded_entry_may_be_nested():
    encoder = Encoder(built("vae", shape=(4,), latent=2), key="camera")
    env = EncodeObservation(SyncVectorEnv([Nested] * 2, autoreset_mode=AutoresetMode.SAME_STEP), encoder)
    env.reset(seed=0)
    for _ in range(3):
        observation, *_, infos = env.step(np.zeros(2, int))
    assert observation["camera"].shape == (2, 2) and observation["joints"]["arm"].shape == (2, 2)
    assert infos["final_obs"][1]["camera"].shape == (2,) and infos["final_obs"][1]["joints"]["arm"].shape == (2,)
