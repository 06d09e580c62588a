"""CLIP: its loss by hand, its scale, its text encoder, and shapes that it tells apart by their captions."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

import generative
from generative.contrastive.captioned_shapes import CaptionedShapes
from generative.contrastive.clip import class_words, contrastive_loss, loss_floor
from generative.contrastive.text_encoder import TextEncoder, word_numbers
from generative.sources import source

SHAPES = CaptionedShapes()
WORDS = {"vocabulary": SHAPES.vocabulary, "num_words": len(SHAPES.vocabulary)}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def built(**config):
    torch.manual_seed(0)
    small = {"shape": (16, 16, 3), "channels": (16, 32), "embedding": 16, "text_width": 32, "num_layers": 1, **WORDS}
    return generative.build("clip", **{**small, **config})


def fitted(model, data, **settings):
    settings = {"validation": 0.0, "device": "cpu", "batch_size": 64, "learning_rate": 3e-3, "keep": "last"} | settings
    for _ in generative.fit(model, data, **settings):
        pass
    return model


def test_contrastive_loss_by_hand():
    """Rows: ln(1 + e^-2), ln(1 + e^0); columns: ln(1 + e^-1), ln(1 + e^-1)."""
    similarity = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    by_hand = (math.log1p(math.exp(-2)) + math.log(2) + 2 * math.log1p(math.exp(-1))) / 4
    assert contrastive_loss(similarity).item() == pytest.approx(by_hand, abs=1e-6)
    assert contrastive_loss(similarity.T).item() == pytest.approx(by_hand, abs=1e-6), "images and texts count the same"


def test_loss_is_of_unit_vectors_times_the_scale():
    model, batch = built(), SHAPES.sample(6, seeded())
    images, texts = (F.normalize(v, dim=1) for v in (model.encode(batch["x"]) * 3, model.encode_text(batch["text"]) * 5))
    by_hand = contrastive_loss(images @ texts.T / 0.07)
    assert model.loss(batch, generator=seeded())[0].item() == pytest.approx(by_hand.item(), abs=1e-5)
    for vectors in (model.encode(batch["x"]), model.encode_text(batch["text"])):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(6))


def test_floor_is_what_perfect_embeddings_cost():
    """Of two texts in pairs: one half of the batches has equal ones, which cost ln 2."""
    assert loss_floor(2, 2) == pytest.approx(math.log(2) / 2)
    label = torch.randint(10, (2_000, 64), generator=seeded())
    certain = (label[:, :, None] == label[:, None]).double() * 1e3
    losses = torch.stack([contrastive_loss(similarity) for similarity in certain])
    assert losses.mean().item() == pytest.approx(loss_floor(64, 10), abs=4 * losses.std().item() / math.sqrt(2_000))


def test_scale_starts_at_one_over_the_temperature_and_stays_at_most_100():
    model = built()
    assert model.log_scale.item() == pytest.approx(math.log(1 / 0.07))
    fitted(model, SHAPES, steps=1, learning_rate=50.0)
    assert model.log_scale.exp().item() <= 100.001
    with torch.no_grad():
        model.log_scale.fill_(7.0)
    model.after_update("model")
    assert model.log_scale.item() == pytest.approx(math.log(100))


def test_text_encoder_reads_order_but_no_padding():
    torch.manual_seed(0)
    encoder = TextEncoder(9, 6, 16, 2, 2, 8)

    def encode(*numbers):
        return encoder(torch.tensor([numbers]))

    torch.testing.assert_close(encode(3, 4), encode(3, 4, 0, 0))
    assert (encode(3, 4) - encode(4, 3)).abs().max() > 1e-3
    assert (encode(3, 4) - encode(3, 4, 5)).abs().max() > 1e-3
    assert encode(0, 0).isfinite().all()


def test_every_word_reaches_the_text_vector():
    torch.manual_seed(0)
    encoder = TextEncoder(9, 6, 16, 2, 1, 8)
    encoder(torch.tensor([[3, 4, 5, 0]])).sum().backward()
    assert encoder.words.grad.any(1).nonzero().flatten().tolist() == [3, 4, 5]
    assert encoder.places.grad.any(1).nonzero().flatten().tolist() == [0, 1, 2]


def test_classes_are_words_where_there_are_no_captions():
    model, batch = built(channels=(4,)), SHAPES.sample(6, seeded())
    del batch["text"]
    assert class_words(torch.tensor([0, 3])).tolist() == [[1], [4]]
    batch["label"] = torch.tensor([0, 1, 2, 3, 4, 5])
    worded = {**batch, "text": batch["label"][:, None] + 1}
    assert torch.equal(model.loss(batch, generator=seeded())[0], model.loss(worded, generator=seeded())[0])
    with pytest.raises(ValueError, match="text each, got none"):
        model.loss({"x": batch["x"]}, generator=seeded())
    with pytest.raises(ValueError, match="text each, got 2 of them"):
        model.loss({**worded, "text": worded["text"][:2]}, generator=seeded())
    pixels = source("coloured_shapes", tiles=1, tile=16).sample(2, seeded())
    with pytest.raises(ValueError, match="a class for each datum"):
        model.loss(pixels, generator=seeded())


def test_strings_are_their_word_numbers():
    model, batch = built(), SHAPES.sample(20, seeded())
    assert [SHAPES.captions[label] for label in batch["label"]] == [
        " ".join(SHAPES.vocabulary[number] for number in text if number) for text in batch["text"].tolist()
    ]
    numbers = word_numbers(SHAPES.captions, SHAPES.vocabulary)
    probabilities = model.classify(batch["x"], SHAPES.captions)
    assert torch.equal(probabilities, model.classify(batch["x"], numbers))
    assert probabilities.shape == (20, 10)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(20))
    with pytest.raises(ValueError, match=r"'purple'.*expected.*words in vocabulary: a, nothing, red"):
        model.classify(batch["x"], ["a purple disc"])


def test_text_of_another_form_is_refused():
    model, x = built(), SHAPES.sample(2, seeded())["x"]
    for text, message in (
        (torch.ones(2, dtype=torch.long), r"text is \[2\]; expected word numbers"),
        (torch.ones(2, 9, dtype=torch.long), "L from 1 to max_words, 8"),
        (torch.ones(2, 3), "expected whole word numbers"),
        (torch.full((2, 3), 9), "word numbers 9 to 9; expected 0 to 8: set num_words"),
        (torch.full((2, 3), -1), "word numbers -1"),
    ):
        with pytest.raises(ValueError, match=message):
            model.loss({"x": x, "text": text}, generator=seeded())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"text_width": 30}, "text_width is 30; expected a multiple of num_heads, 4"),
        ({"num_words": 5}, "num_words is 5; expected at least 9 words"),
        ({"temperature": 0.001}, "temperature is 0.001; expected at least 0.01"),
        ({"word_dropout": 1.0}, "word_dropout is 1.0; expected a probability below 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        built(**setting)


def test_ten_classes_reach_the_floor_and_are_told_apart():
    """Dense, on vectors, the classes' numbers as captions; in the loss's floor the equal ones of 64 are counted."""
    angle = [math.tau * k / 10 for k in range(10)]
    circle = source("gaussian_mixture", means=tuple((8 * math.cos(a), 8 * math.sin(a)) for a in angle),
                    weights=(0.1,) * 10, stds=(0.5,) * 10)  # fmt: skip
    model = built(shape=(2,), channels=(), hidden=(64,), embedding=8, num_words=11, vocabulary=())
    fitted(model, circle, steps=300, learning_rate=5e-3)
    batch, unseen = circle.sample(2_000, seeded(1)), seeded(2)
    with torch.no_grad():
        losses = torch.stack([model.loss(circle.sample(64, unseen), generator=unseen)[0] for _ in range(300)])
        chosen = model.classify(batch["x"], class_words(torch.arange(10))).argmax(1)
    error = 4 * losses.std().item() / math.sqrt(300)
    assert loss_floor(64, 10) - error < losses.mean().item() <= 1.95
    assert torch.equal(chosen, batch["label"])


def coloured_things(n: int, generator: torch.Generator):
    """Vectors that tell one of 4 colours and one of 4 kinds under noise, with captions of two words; and which of the 16."""
    label = torch.randint(16, (n,), generator=generator)
    colour, kind = label // 4, label % 4
    exact = torch.cat([F.one_hot(colour, 4), F.one_hot(kind, 4)], 1).float()
    x = exact + 0.1 * torch.randn(n, 8, generator=generator)
    return {"x": x, "text": torch.stack([1 + colour, 5 + kind], 1)}, label


def test_combinations_that_no_caption_had_are_recognised():
    data, label = coloured_things(20_000, seeded())
    unseen = torch.isin(label, torch.tensor([0, 5]))  # first colour and first kind, second and second
    model = built(shape=(8,), channels=(), hidden=(32,), vocabulary=())
    fitted(model, {key: value[~unseen] for key, value in data.items()}, steps=200, learning_rate=5e-3)
    every = torch.tensor([[1 + number // 4, 5 + number % 4] for number in range(16)])
    with torch.no_grad():
        right = model.classify(data["x"], every).argmax(1) == label
    assert right[~unseen].double().mean() >= 0.99
    assert right[unseen].double().mean() >= 0.8, "by chance 1/16"


def test_words_are_dropped_in_training_alone():
    model, batch = built(word_dropout=0.5), SHAPES.sample(64, seeded())
    whole = copy.deepcopy(built())
    loss = model.loss(batch, generator=seeded())[0]
    assert loss != model.loss(batch, generator=seeded(1))[0]
    assert model.eval().loss(batch, generator=seeded())[0] == whole.eval().loss(batch, generator=seeded())[0]


def test_left_out_shapes_are_never_drawn_and_the_others_alike():
    label = CaptionedShapes(left_out=(4, 9)).sample(4_000, seeded())["label"]
    counts = label.bincount(minlength=10)
    assert counts[[4, 9]].tolist() == [0, 0]
    assert (counts[counts > 0] - 500).abs().max() < 5 * math.sqrt(500)
