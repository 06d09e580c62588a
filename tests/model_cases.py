"""Small configurations of every registered model with data for each: what the law test runs over."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from generative.model import Batch
from generative.sources import binary_states, source


@dataclass(frozen=True)
class Case:
    """One model at one tiny configuration."""

    model: str  # registered name
    config: dict[str, Any]
    source: str  # of the data, by its registered name
    settings: dict[str, Any] = field(default_factory=dict)  # of the source
    every: torch.Tensor | None = None  # all data there can be, where they can be listed: Σ p = 1 over them
    untrained: tuple[str, ...] = ()  # parameters that no loss reaches, by design
    refused: tuple[tuple[str, torch.Tensor, str], ...] = ()  # (what, x, message): x of a wrong shape or range, and its refusal

    def sample(self, n: int, generator: torch.Generator) -> Batch:
        return source(self.source, **self.settings).sample(n, generator)


CASES: list[Case] = []


FOUR_BITS: dict[str, Any] = {  # of the dense autoregressive models
    "source": "ising",
    "settings": {"side": 2},
    "every": binary_states(4).float(),
    "refused": (
        ("frames", torch.zeros(2, 2, 2, 1), "flatten frames, or set dimensions"),
        ("too many dimensions", torch.zeros(2, 5), "flatten frames, or set dimensions"),
        ("grey levels", torch.full((2, 4), 0.5), "expected zeros and ones"),
        ("a missing value", torch.full((2, 4), torch.nan), "expected zeros and ones"),
    ),
}
SHUFFLED = {"dimensions": 4, "ordering": (2, 0, 3, 1)}
NOT_BITS: dict[str, Any] = {"refused": (("grey levels", torch.full((3, 64), 0.5), "expected zeros and ones"),)}
CASES += [
    Case("fvsbn", {"dimensions": 4}, **FOUR_BITS),
    Case("fvsbn", {"dimensions": 64, "num_classes": 10, "input_dropout": 0.2}, "digits", **NOT_BITS),
    Case("nade", {"dimensions": 4, "hidden": 6}, **FOUR_BITS),
    Case("nade", {"dimensions": 64, "hidden": 6, "activation": "relu", "num_classes": 10}, "digits", **NOT_BITS),
    Case("made", {**SHUFFLED, "hidden_sizes": (8, 8), "direct": True}, **FOUR_BITS),
    Case("made", {"dimensions": 4, "hidden_sizes": (8,), "num_masks": 3, "order_agnostic": True}, **FOUR_BITS),
    Case("made", {"dimensions": 64, "hidden_sizes": (8,), "num_classes": 10, "input_dropout": 0.2}, "digits", **NOT_BITS),
    Case(
        "made",
        {**SHUFFLED, "hidden_sizes": (8,), "head": "categorical", "levels": 2},
        **{**FOUR_BITS, "refused": (("a level too high", torch.full((2, 4), 2.0), "expected zeros and ones"),)},
    ),
    Case(
        "made",
        {"dimensions": 2, "hidden_sizes": (8,), "head": "gaussian"},
        "gaussian_mixture",
        refused=(("not a number", torch.full((2, 2), torch.nan), "not finite"),),
    ),
]


FOUR_PIXELS: dict[str, Any] = {  # of the pixel models
    "source": "ising",
    "settings": {"side": 2, "frames": True},
    "every": binary_states(4).view(-1, 2, 2, 1),
    "refused": (
        ("vectors", torch.zeros(2, 4), "resize them, or set height, width and channels"),
        ("another size", torch.zeros(2, 2, 3, 1, dtype=torch.uint8), "resize them, or set height, width and channels"),
        ("floats", torch.zeros(2, 2, 2, 1), "expected torch.uint8"),
        ("a level too high", torch.full((2, 2, 2, 1), 2, dtype=torch.uint8), "quantise the frames, or set levels"),
    ),
}
TINY_PIXELS = {"hidden": 6, "num_layers": 2, "first_kernel": 3}
GREY_PIXELS = {**TINY_PIXELS, "levels": 17, "head": "logistic_mixture", "num_classes": 10, "input_dropout": 0.2}
TOO_HIGH = ("a level too high", torch.full((2, 8, 8, 1), 17, dtype=torch.uint8), "quantise the frames, or set levels")
CHANNELS_FIRST = ("channels first", torch.zeros(2, 3, 3, 4, dtype=torch.uint8), "or set height, width and channels")
for _name in ("pixel_rnn", "pixel_cnn", "gated_pixel_cnn"):
    CASES += [
        Case(_name, {"height": 2, "width": 2, **TINY_PIXELS}, **FOUR_PIXELS),
        Case(_name, GREY_PIXELS, "digits", {"levels": 17, "frames": True}, refused=(TOO_HIGH,)),
        Case(
            _name,
            {"height": 3, "width": 4, "channels": 3, **TINY_PIXELS},
            "colour_copies",
            {"height": 3, "width": 4},
            refused=(CHANNELS_FIRST,),
        ),
    ]


VECTORS: dict[str, Any] = {  # of the autoencoders
    "refused": (
        ("another size", torch.zeros(3, 63), "expected vectors \\[B, 64\\]: set shape"),
        ("integers", torch.zeros(3, 64, dtype=torch.int64), "expected float vectors"),
        ("a missing value", torch.full((3, 64), torch.nan), "not finite"),
    ),
}
GREY_FRAMES: dict[str, Any] = {
    "source": "digits",
    "settings": {"levels": 17, "frames": True},
    "refused": (
        ("vectors", torch.zeros(3, 64), "expected frames"),
        ("a level too high", torch.full((3, 8, 8, 1), 17, dtype=torch.uint8), "set levels to what was recorded"),
    ),
}
TINY_FRAMES: dict[str, Any] = {"shape": (8, 8, 1), "levels": 17, "latent": 3}
NOT_SHARES = ("grey levels", torch.full((3, 64), 16.0), "expected 0 to 1 for the bernoulli head")
BITS: dict[str, Any] = {"refused": (*VECTORS["refused"], NOT_SHARES)}
CASES += [
    Case("linear_autoencoder", {"latent": 3}, "digits", **VECTORS),
    Case("linear_autoencoder", TINY_FRAMES, **GREY_FRAMES),
    Case("autoencoder", {"latent": 3, "hidden": (8,), "activation": "elu"}, "digits", **VECTORS),
    Case("autoencoder", {**TINY_FRAMES, "latent": 80, "channels": (4, 8), "activation": "elu", "sparsity": 0.1}, **GREY_FRAMES),
    Case("denoising_autoencoder", {"latent": 8, "hidden": (8,), "activation": "elu"}, "digits", **VECTORS),
    Case("denoising_autoencoder", {"latent": 8, "hidden": (), "corruption": "masking"}, "digits", **VECTORS),
    Case(
        "denoising_autoencoder", {**TINY_FRAMES, "channels": (4,), "activation": "elu", "corruption": "masking"}, **GREY_FRAMES
    ),
    Case("vae", {"latent": 3, "hidden": (8,), "activation": "elu", "head": "bernoulli", "num_classes": 10}, "digits", **BITS),
    Case("vae", {"latent": 3, "hidden": (8,), "activation": "elu", "warm_up": 9, "free_nats": 0.01}, "digits", **VECTORS),
    Case("vae", {**TINY_FRAMES, "channels": (4, 8), "activation": "elu", "head": "logistic_mixture"}, **GREY_FRAMES),
    Case("vae", {**TINY_FRAMES, "channels": (4,), "activation": "elu", "scale": "learned"}, **GREY_FRAMES),
    Case("vae", {**TINY_FRAMES, "hidden": (8,), "activation": "elu", "head": "categorical", "num_classes": 10}, **GREY_FRAMES),
    Case("beta_vae", {"latent": 3, "hidden": (8,), "activation": "elu", "head": "bernoulli"}, "digits", **BITS),
    Case("beta_vae", {**TINY_FRAMES, "channels": (4,), "activation": "elu", "max_kl": 2.0}, **GREY_FRAMES),
]


FRAME = torch.zeros(2, 8, 8, 1, dtype=torch.uint8)
NO_FRAMES = (
    ("vectors", FRAME.flatten(1), r"x is \[2, 64\]; expected frames \[B, 8, 8, 1\]"),
    ("other sides", FRAME[:, :7], r"x is \[2, 7, 8, 1\]; expected frames \[B, 8, 8, 1\]"),
    ("floats", FRAME.float(), "x is torch.float32; expected frames as recorded, uint8 of the levels 0 to 16"),
    ("levels above", FRAME + 17, "x reaches level 17; expected at most 16"),
)
NO_VECTORS = (
    ("too long", torch.zeros(2, 65), r"x is \[2, 65\]; expected vectors \[B, 64\]"),
    ("frames", FRAME, r"x is \[2, 8, 8, 1\]; expected vectors \[B, 64\]"),
)
NO_SHAPES = (("grey", FRAME, r"x is \[2, 8, 8, 1\]; expected frames \[B, 9, 9, 3\]"),)
GREY_DIGITS, DIGITS = {"levels": 17, "frames": True}, {"shape": (8, 8, 1), "levels": 17}
SHAPES = ("coloured_shapes", {"tiles": 1, "tile": 9})
CASES += [
    Case(
        "perceptron", {"in_features": 2}, "gaussian_mixture",
        {"weights": (0.5, 0.5), "means": ((-1.0, 0.0), (1.0, 0.0)), "stds": (1.0, 1.0)},
        refused=(("too long", torch.zeros(2, 3), r"x is \[2, 3\]; expected vectors \[B, 2\]"),),
    ),
    Case("mlp", {"in_features": 64, "out_features": 10, "hidden_sizes": (16,), "dropout": 0.1}, "digits", refused=NO_VECTORS),
    Case("mlp", {"in_features": 2, "head": "laplace", "scale": None, "activation": "silu"}, "ring"),
    Case("cnn", {**DIGITS, "out_features": 10, "channels": (4, 8)}, "digits", GREY_DIGITS, refused=NO_FRAMES),
    Case("classifier", {"shape": (64,), "num_classes": 10, "hidden_sizes": (16,)}, "digits", refused=NO_VECTORS),
    Case(
        "classifier", {**DIGITS, "num_classes": 10, "network": "cnn", "channels": (4, 8), "shift": 1}, "digits", GREY_DIGITS,
        refused=NO_FRAMES,
    ),
    Case("unet", {"shape": (9, 9, 3), "out_channels": 3, "channels": (4, 8)}, *SHAPES, refused=NO_SHAPES),
    *(
        Case(
            "segmenter", {"shape": (9, 9, 3), "num_classes": 4, "channels": (4, 8), "upsampling": upsampling, "skips": skips},
            *SHAPES, refused=NO_SHAPES,
        )
        for upsampling, skips in (
            ("nearest", True), ("bed_of_nails", False), ("max_unpooling", True), ("transposed", False)
        )
    ),
]  # fmt: skip


SIX_STEPS: dict[str, Any] = {  # of the sequence models
    "source": "delayed_xor",
    "settings": {"delay": 2, "num_steps": 6},
    "every": binary_states(6).float()[..., None],
    "refused": (
        ("vectors", torch.zeros(3, 6), r"expected \[B, T, 1\] with T ≥ 1: reshape it, or set size, num_steps or vectors"),
        ("two values a step", torch.zeros(3, 6, 2), r"expected \[B, T, 1\]"),
        ("no step", torch.zeros(3, 0, 1), "T ≥ 1"),
        ("grey levels", torch.full((3, 6, 1), 0.5), "the bernoulli head expects 0 and 1: scale it, or set head"),
        ("a missing value", torch.full((3, 6, 1), torch.nan), "the bernoulli head expects 0 and 1"),
    ),
}
NOT_FINITE = ("not a number", torch.full((2, 5, 1), torch.nan), "the gaussian head expects finite numbers")
for _name, _tiny in {
    "elman_rnn": {"hidden": 6},
    "lstm": {"hidden": 6, "num_layers": 2},
    "transformer": {"width": 8, "num_heads": 2, "context": 4},
    "wavenet": {"channels": 6, "skip": 6, "dilations": (1, 2)},
}.items():
    CASES += [
        Case(_name, {"num_steps": 6, **_tiny}, **SIX_STEPS),
        Case(
            _name,
            {"head": "gaussian", "num_steps": 5, **_tiny},
            "linear_dynamical_system",
            {"num_steps": 5},
            refused=(NOT_FINITE,),
        ),
        Case(_name, {"vectors": True, "num_steps": 4, **_tiny}, "ising", {"side": 2}, binary_states(4).float()),
    ]
CASES += [
    Case("transformer", {"num_steps": 6, "width": 8, "num_heads": 2, "positions": "rotary", "dropout": 0.2}, **SIX_STEPS),
    *[
        Case(_name, {"size": 2, "target": "label", "head": "gaussian", "hidden": 6}, "adding_problem", {"num_steps": 5})
        for _name in ("elman_rnn", "lstm")
    ],
]


SHORT: dict[str, Any] = {"source": "linear_dynamical_system", "settings": {"num_steps": 5}}
STEERED: dict[str, Any] = {"source": "linear_dynamical_system", "settings": {"num_steps": 5, "controls": [[0.5], [-1.0]]}}
BITS_IN_TIME: dict[str, Any] = {"source": "delayed_xor", "settings": {"delay": 2, "num_steps": 6}}
TINY_RECURRENT = {"in_features": 1, "hidden": 5, "hidden_sizes": (6,), "num_steps": 6}
NO_SEQUENCES = (("vectors", torch.zeros(2, 3), "expected sequences"), ("wider steps", torch.zeros(2, 3, 2), "set in_features"))
HALVES = ("halves", torch.full((2, 6, 1), 0.5), "expected bits")
CASES += [
    Case("vrnn", TINY_RECURRENT, **SHORT, refused=NO_SEQUENCES),
    Case("vrnn", {**TINY_RECURRENT, "cell": "lstm", "head": "bernoulli"}, **BITS_IN_TIME, refused=(*NO_SEQUENCES, HALVES)),
    Case("conditional_vrnn", {**TINY_RECURRENT, "condition": "action", "condition_size": 1}, **STEERED, refused=NO_SEQUENCES),
    Case("conditional_vrnn", {**TINY_RECURRENT, "condition": "gaussian", "condition_size": 2}, **SHORT, refused=NO_SEQUENCES),
    Case(
        "conditional_vrnn",
        {**TINY_RECURRENT, "condition": "discrete", "condition_size": 3, "head": "bernoulli"},
        **BITS_IN_TIME,
        refused=(*NO_SEQUENCES, HALVES),
    ),
]


TINY_PLAYERS = {"latent": 3, "hidden": (8,), "features": 6, "activation": "silu"}
TINY_CONVOLUTIONS = {**TINY_FRAMES, "channels": (4, 8), "features": 6, "activation": "silu"}
for _name, _extra in {
    "gan": ({"r1": 0.1, "discriminator_updates": 2}, {"objective": "saturating"}),
    "unrolled_gan": ({"unrolled_steps": 2}, {"unrolled_steps": 1, "objective": "non_saturating"}),
    "wgan": ({"lipschitz": "clipping", "clip": 0.5}, {"lipschitz": "two_sided"}),
}.items():
    CASES += [
        Case(_name, TINY_PLAYERS, "digits", **VECTORS),
        Case(_name, {**TINY_PLAYERS, "shape": (2,), "num_classes": 8, **_extra[0]}, "ring"),
        Case(_name, {**TINY_CONVOLUTIONS, **_extra[1]}, **GREY_FRAMES),
        Case(_name, {**TINY_CONVOLUTIONS, "num_classes": 10}, **GREY_FRAMES),
    ]


TINY_DIFFUSION: dict[str, Any] = {"num_steps": 20, "sample_steps": 4, "embedding": 8, "hidden": (8, 8), "channels": (4, 8)}
CODES: dict[str, Any] = {"autoencoder": "linear_autoencoder", "autoencoder_config": {"latent": 3}}
CASES += [
    Case("diffusion", {**TINY_DIFFUSION, "prediction": "x0", "schedule": "linear", "std": 0.5}, "digits", **VECTORS),
    Case("diffusion", {**TINY_DIFFUSION, "prediction": "epsilon", "num_classes": 10, "guidance": 2.0}, "digits", **VECTORS),
    Case("diffusion", {**TINY_DIFFUSION, **DIGITS, "sampler": "ancestral", "feature_depth": 1}, **GREY_FRAMES),
    Case("diffusion", {**TINY_DIFFUSION, **DIGITS, "sampler": "ode", "num_classes": 10}, **GREY_FRAMES),
    Case("latent_diffusion", {**CODES, "diffusion": {**TINY_DIFFUSION, "num_classes": 10}}, "digits", **VECTORS),
]


TINY_FLOW: dict[str, Any] = {"levels": 17, "activation": "elu", "alpha": 0.1}
NOT_WHOLE = (
    ("vectors", torch.zeros(2, 64), r"expected frames \[B, 8, 8, 1\]"),
    ("a level too high", FRAME + 17, "set levels to what was recorded"),
)
NOT_REAL = (
    ("another size", torch.zeros(2, 3), r"expected vectors \[B, 2\]: set shape"),
    ("a missing value", torch.full((2, 2), torch.nan), "not finite"),
)
FIVE_MEANS = ((-2.0, 0.0, 0.0, 1.0, 0.5), (1.5, 1.5, 0.0, 0.0, 1.0), (1.0, -2.0, 1.0, 0.0, 0.0))
for _name, _dense, _frames in (
    ("nice", {"hidden_sizes": (8,)}, {"hidden_sizes": (8,)}),
    ("real_nvp", {"hidden_sizes": (8,)}, {"hidden": 4, "num_blocks": 1, "num_couplings": 2}),
    ("glow", {"hidden_sizes": (8,), "num_steps": 3}, {"hidden": 4, "num_steps": 2}),
):
    CASES += [
        Case(_name, {"shape": (2,), **_dense}, "banana", refused=NOT_REAL),
        Case(_name, {"shape": (5,), "num_classes": 3, **_dense}, "gaussian_mixture", {"means": FIVE_MEANS}),
        Case(_name, {"shape": (8, 8, 1), **TINY_FLOW, **_frames}, "digits", GREY_DIGITS, refused=NOT_WHOLE),
        Case(_name, {"shape": (8, 8, 1), "num_classes": 10, **TINY_FLOW, **_frames}, "digits", GREY_DIGITS),
    ]


TINY_WORLD: dict[str, Any] = {"action_size": 2, "hidden": (8,), "embedding": 8}
TINY_RSSM: dict[str, Any] = {**TINY_WORLD, "latent_size": 3, "classes": 4, "memory": 6}
TINY_DENOISER: dict[str, Any] = {**TINY_WORLD, "num_steps": 20, "features": 6, "channels": (4, 8), "seen": (4,)}
SEEN: dict[str, Any] = {"shape": (8, 8, 1)}
WALKS = {"num_steps": 5, "frames": True}
NO_FRAMES_IN_TIME = (
    ("single frames", torch.zeros(2, 8, 8, 1, dtype=torch.uint8), r"expected sequences \[B, T, 8, 8, 1\]"),
    ("floats", torch.zeros(2, 5, 8, 8, 1), "expected frames as recorded"),
    ("other lengths", torch.zeros(2, 4, 8, 8, 1, dtype=torch.uint8), r"action is .* expected \[B, T, 2\]"),
)
NO_VECTORS_IN_TIME = (
    ("wider steps", torch.zeros(2, 5, 2), "or set shape"),
    ("a missing value", torch.full((2, 5, 1), torch.nan), "not finite"),
)
CASES += [
    Case("world_model", {**TINY_RSSM, **SEEN, "channels": (4, 8)}, "tests.walks:Walk", WALKS, refused=NO_FRAMES_IN_TIME),
    Case(
        "world_model", {**TINY_RSSM, "shape": (1,), "latent": "gaussian", "balance": None, "free_nats": 0.1, "unseen": 0.3},
        "tests.walks:Walk", {**WALKS, "frames": False}, refused=NO_VECTORS_IN_TIME,
    ),
    Case("diffusion_world_model", {**TINY_DENOISER, **SEEN}, "tests.walks:Walk", WALKS, refused=NO_FRAMES_IN_TIME),
    Case(
        "diffusion_world_model", {**TINY_DENOISER, "shape": (1,), "past": 1},
        "tests.walks:Walk", {**WALKS, "frames": False}, refused=NO_VECTORS_IN_TIME,
    ),
]  # fmt: skip


TINY_TEXTS: dict[str, Any] = {"embedding": 5, "text_width": 8, "num_heads": 2, "num_layers": 1, "num_words": 11}
CASES += [
    Case("clip", {"shape": (64,), "hidden": (8,), "activation": "elu", **TINY_TEXTS}, "digits", **VECTORS),
    Case("clip", {"shape": (8, 8, 1), "levels": 17, "channels": (4,), "activation": "elu", **TINY_TEXTS}, **GREY_FRAMES),
    Case(
        "clip",
        {"shape": (8, 8, 3), "channels": (4,), "activation": "elu", "word_dropout": 0.2, **TINY_TEXTS, "num_layers": 2},
        "generative.contrastive.captioned_shapes:CaptionedShapes",
        {"side": 8},
    ),
]


CASES += [
    Case(
        "ensemble_dynamics", {"in_features": 1, "action_size": 2, "hidden_sizes": (8,), "num_members": 3},
        "tests.walks:Walk", {"num_steps": 5, "frames": False}, refused=NO_VECTORS_IN_TIME[1:],
    ),
    Case(
        "ensemble_dynamics", {"in_features": 1, "action_size": 2, "hidden_sizes": (8, 6), "members": "own"},
        "tests.walks:Walk", {"num_steps": 5, "frames": False},
        refused=(("single vectors", torch.zeros(2, 1), "expected sequences"), ("wider", torch.zeros(2, 5, 2), "in_features")),
    ),
]  # fmt: skip
