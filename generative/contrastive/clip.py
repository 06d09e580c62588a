"""CLIP: an image encoder f and a text encoder g, trained so that an image and its caption get similar embeddings.

    u_i = f(x_i)/‖f(x_i)‖,   v_i = g(y_i)/‖g(y_i)‖,   s_ij = e^τ u_i · v_j
    L = −(1/2B) Σ_i [ln softmax_j(s_ij)[i] + ln softmax_j(s_ji)[i]]

In a batch of B pairs each image picks its own text among all B, and each text its image; the scale e^τ is learned, from
1/0.07 on, and kept at 100 or less (Radford et al. 2021, arXiv:2103.00020, §2.3–2.5; notes §9.4). Zero-shot classification:
texts that name classes are scored against an image, p(k | x) = softmax_k(e^τ u · v_k), though none was trained as a class.

Equal texts in a batch can't be told apart, so L has a floor above 0 (`loss_floor`). It also grows with B, so losses of batches
of different sizes don't compare. Data without `text` but with a class, `label` [B], are captioned by one word, the class's
number plus 1.

Deviations: small encoders (convolutions or a perceptron for images, a bidirectional Transformer for texts), both from scratch;
with `word_dropout` captions lose words at random in training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.autoencoders.coders import check_coders, encoder
from generative.autoencoders.data_form import DataForm
from generative.contrastive.text_encoder import TextEncoder, word_numbers
from generative.likelihoods import require
from generative.model import Batch, GenerativeModel, Metrics, Picture
from generative.networks.cnn import filters
from generative.networks.mlp import Activation, kept

MAX_SCALE = 100.0  # of the similarities: a larger one makes training unstable (§2.5)


@dataclass(frozen=True)
class CLIPConfig:
    shape: tuple[int, ...]  # of a datum as recorded: (D,), or (H, W, C) of frames
    num_words: int = 64  # word numbers are 0 … num_words − 1; 0 is padding
    max_words: int = 8  # in a text
    vocabulary: tuple[str, ...] = ()  # the word of each number, from 0 on; with it texts may be strings
    embedding: int = 64  # D, of the space that images and texts share
    hidden: tuple[int, ...] = (256,)  # units of a dense image encoder
    channels: tuple[int, ...] = ()  # of a convolutional one, each halves the sides; none: dense
    activation: Activation = "relu"  # of the image encoder
    text_width: int = 64  # numbers that the text encoder keeps of each word
    num_heads: int = 4  # of its attention
    num_layers: int = 2
    word_dropout: float = 0.0  # probability of leaving a word of a caption out; only in training
    temperature: float = 0.07  # e^−τ at the start
    levels: int = 256  # of a frame's pixel: 0 … levels − 1

    def __post_init__(self) -> None:
        check_coders(self.form, self.embedding, self.hidden, self.channels)
        require(self.num_words >= 2, "num_words", self.num_words, "at least 2: padding and a word")
        require(len(self.vocabulary) <= self.num_words, "num_words", self.num_words, f"at least {len(self.vocabulary)} words")
        for name in ("max_words", "text_width", "num_heads", "num_layers"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        fits = self.text_width % self.num_heads == 0
        require(fits, "text_width", self.text_width, f"a multiple of num_heads, {self.num_heads}")
        require(0 <= self.word_dropout < 1, "word_dropout", self.word_dropout, "a probability below 1")
        require(self.temperature >= 1 / MAX_SCALE, "temperature", self.temperature, f"at least {1 / MAX_SCALE}")

    @property
    def form(self) -> DataForm:
        return DataForm(self.shape, self.levels)


def contrastive_loss(similarity: Tensor) -> Tensor:
    """L in nats, a 0-dim mean, of the scaled similarities [B, B] of image i and text j; pairs are on the diagonal.

    >>> round(contrastive_loss(torch.zeros(4, 4)).item(), 4)  # ln 4: nothing is told apart
    1.3863
    """
    own = torch.arange(len(similarity), device=similarity.device)
    return (F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)) / 2


def loss_floor(batch_size: int, num_texts: int) -> float:
    """E ln(1 + Bin(B − 1, 1/K)): the least expected L in nats with K equally likely texts; of m equal texts each gets 1/m.

    >>> round(loss_floor(64, 10), 5)
    1.92909
    """
    others, share = batch_size - 1, 1 / num_texts
    return sum(
        math.comb(others, equal) * share**equal * (1 - share) ** (others - equal) * math.log(1 + equal)
        for equal in range(others + 1)
    )


def class_words(label: Tensor) -> Tensor:
    """Texts [B, 1] of one word that stand for classes 0, 1, … [B]. Raises ValueError for labels of another form.

    >>> class_words(torch.tensor([0, 9])).tolist()
    [[1], [10]]
    """
    if label.ndim != 1 or label.is_floating_point():
        raise ValueError(f"label is {label.dtype} {list(label.shape)}; expected a class for each datum [B], or give `text`")
    return label[:, None].long() + 1


class CLIP(GenerativeModel):
    """Reads `text`, word numbers [B, L] padded by 0, beside x; else `label` [B]."""

    Config = CLIPConfig
    config: CLIPConfig

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__(config)
        self.form = config.form
        self.image_encoder = encoder(self.form, config.hidden, config.channels, config.activation, config.embedding)
        self.text_encoder = TextEncoder(
            config.num_words, config.max_words, config.text_width, config.num_heads, config.num_layers, config.embedding
        )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(config.temperature)))  # τ

    def encode(self, x: Tensor) -> Tensor:
        """Unit vectors [B, D] of images."""
        return F.normalize(self.image_encoder(self.form.inputs(x, self.log_scale.dtype)), dim=1)

    def encode_text(self, text: Tensor | Sequence[str]) -> Tensor:
        """Unit vectors [K, D] of texts, word numbers [K, L]; or strings, where the model has a vocabulary."""
        numbers = text if isinstance(text, Tensor) else word_numbers(text, self.config.vocabulary)
        return F.normalize(self.text_encoder(numbers.to(self.log_scale.device)), dim=1)

    def similarity(self, x: Tensor, text: Tensor | Sequence[str]) -> Tensor:
        """s [B, K] of images and texts."""
        return self.log_scale.exp() * self.encode(x) @ self.encode_text(text).T

    def classify(self, x: Tensor, texts: Tensor | Sequence[str]) -> Tensor:
        """Probabilities [B, K] that texts [K, L] are the images' own, each class being named by one."""
        return self.similarity(x, texts).softmax(1)

    def loss(self, batch: Batch, player: str = "model", *, generator: torch.Generator) -> tuple[Tensor, Metrics]:
        text = self._text_of(batch)
        if self.training and self.config.word_dropout:
            text = text * (kept(text.shape, self.config.word_dropout, generator) > 0).to(text.device)
        similarity = self.similarity(batch["x"], text)
        chosen = text[similarity.argmax(1)]  # equal texts count as one
        accuracy = (chosen == text).all(1).to(similarity.dtype).mean()
        return contrastive_loss(similarity), {"accuracy": accuracy, "scale": self.log_scale.detach().exp()}

    @torch.no_grad()
    def after_update(self, player: str) -> None:
        self.log_scale.clamp_(max=math.log(MAX_SCALE))

    def pictures(self) -> dict[str, Picture]:
        return filters(self.image_encoder)

    @staticmethod
    def _text_of(batch: Batch) -> Tensor:
        text = batch["text"] if "text" in batch else class_words(batch["label"]) if "label" in batch else None
        if text is None or len(text) != len(batch["x"]):
            got = "none" if text is None else f"{len(text)} of them"
            raise ValueError(f"{len(batch['x'])} images need a text each, got {got}; expected `text` [B, L], or `label` [B]")
        return text
