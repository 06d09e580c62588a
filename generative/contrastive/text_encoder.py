"""A small Transformer that reads texts, given as word numbers, into one vector each (notes §6.7).

A learned summary stands before the words; in every layer each position looks at the summary and at all words (the attention
is not causal), and the summary's last state, mapped linearly, is the text's vector. Radford et al. 2021 (arXiv:2103.00020)
read a causal Transformer at an end-of-text word instead; with nothing to generate there is no need to hide what comes later.
Padding, number 0, is never looked at: a text means the same however long its row is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from generative.networks.transformer import Block, TransformerConfig

START = 0.1  # standard deviation of embeddings at the start


class TextEncoder(nn.Module):
    """Word numbers [B, L], L ≤ max_words, of 0 … num_words − 1 → [B, out_features].

    >>> TextEncoder(20, 8, 16, 2, 1, 5)(torch.tensor([[3, 7, 0], [4, 0, 0]])).shape
    torch.Size([2, 5])
    """

    def __init__(self, num_words: int, max_words: int, width: int, num_heads: int, num_layers: int, out_features: int) -> None:
        super().__init__()
        config = TransformerConfig(width=width, num_heads=num_heads, num_layers=num_layers, context=max_words + 1)
        self.words = nn.Parameter(START * torch.randn(num_words, width))
        self.places = nn.Parameter(START * torch.randn(max_words, width))
        self.summary = nn.Parameter(START * torch.randn(width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, out_features, bias=False)

    def forward(self, text: Tensor) -> Tensor:
        text = self._checked(text)
        embedded = self.words[text] + self.places[: text.shape[1]]  # [B, L, C]
        hidden = torch.cat([self.summary.expand(len(text), 1, -1), embedded], 1)  # [B, 1 + L, C]
        seen = F.pad(text > 0, (1, 0), value=True)  # the summary always
        look = seen[:, None].expand(-1, seen.shape[1], -1)  # [B, 1 + L, 1 + L]
        position = torch.arange(seen.shape[1], device=text.device).expand(len(text), -1)
        for block in self.blocks:
            hidden, _ = block(hidden, position, look)
        return self.output(self.norm(hidden[:, 0]))

    def _checked(self, text: Tensor) -> Tensor:
        """`text` as int64. Raises ValueError for other shapes, types and numbers."""
        (num_words, _), (max_words, _) = self.words.shape, self.places.shape
        if text.ndim != 2 or not 1 <= text.shape[1] <= max_words:
            raise ValueError(f"text is {list(text.shape)}; expected word numbers [B, L], L from 1 to max_words, {max_words}")
        if text.is_floating_point() or text.dtype == torch.bool:
            raise ValueError(f"text is {text.dtype}; expected whole word numbers, 0 for padding")
        text = text.long()
        if not torch.compiler.is_compiling() and text.numel():  # a look breaks a graph
            low, high = int(text.min()), int(text.max())
            if low < 0 or high >= num_words:
                raise ValueError(f"text has the word numbers {low} to {high}; expected 0 to {num_words - 1}: set num_words")
        return text


def word_numbers(texts: Sequence[str], vocabulary: Sequence[str]) -> Tensor:
    """Numbers [K, L] of the words of `texts` in `vocabulary`, padded by 0. Raises ValueError for a word that isn't in it.

    >>> word_numbers(["a key", "a red key"], ["", "a", "red", "key"]).tolist()
    [[1, 3, 0], [1, 2, 3]]
    """
    numbers = {word: number for number, word in enumerate(vocabulary) if number}
    split = [text.split() for text in texts]
    unknown = sorted({word for words in split for word in words} - numbers.keys())
    if unknown or not texts:
        raise ValueError(
            f"got {len(texts)} texts with the words {unknown}; expected at least one text of words in vocabulary: "
            f"{', '.join(numbers) or 'it is empty, so set it or give word numbers'}"
        )
    length = max(1, *(len(words) for words in split))
    return torch.tensor([[*(numbers[word] for word in words), *[0] * (length - len(words))] for words in split])
