"""The right but unusual caches are right: random uses of each, compared with uncached logits."""

import copy
import random

import pytest
import torch
from helpers import random_ids, small_model
from right_caches import RIGHT

pytestmark = pytest.mark.authors

ROOM = 24
ROUNDS = 11  # of two caches each
ERRORS = (ValueError, IndexError, AssertionError, RuntimeError)
EVERY = pytest.mark.parametrize("name", RIGHT)
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-3, torch.bfloat16: 0.5}


def models(name):
    """A model of the collection, and the course's with the same weights."""
    dtype = getattr(RIGHT[name], "exact_in", torch.float64)
    model, plain = small_model(RIGHT[name], dtype=dtype), small_model(dtype=dtype)
    plain.load_state_dict(model.state_dict())
    return model, plain


def close(found, expected):
    assert found.shape == expected.shape
    assert torch.allclose(found, expected, 0, TOLERANCE[expected.dtype])


class Text:
    """A full text with its right logits, and a cache that has taken in the first part of it.

    All texts begin alike, up to a random length.
    """

    def __init__(self, model, plain, chance, rows=None):
        self.model, self.plain, self.chance = model, plain, chance
        self.cache, self.stored = None, 0
        self.ids = random_ids(rows or chance.randint(1, 3), ROOM)
        self.renew(chance.randint(0, ROOM))

    def words(self, rows, length):
        return random_ids(rows, length, seed=self.chance.randrange(10**6))

    def renew(self, length):
        """Other words from position `length` on."""
        new = self.words(len(self.ids), ROOM - length)
        self.ids = torch.cat([self.ids[:, :length], new], dim=1)
        self.expected = self.plain(self.ids)[0]

    def feed(self, new):
        part = slice(self.stored, self.stored + new)
        found, self.cache = self.model(self.ids[:, part], past_kv=self.cache, use_cache=True)
        self.compare(found, part)
        self.stored += new

    def compare(self, found, part):
        close(found, self.expected[:, part])

    def truncate(self):
        length = self.chance.randint(0, self.stored)
        new = self.cache.truncate(length)
        self.cache = self.cache if new is None else new
        self.stored = length
        self.renew(self.stored)

    def reorder(self):
        rows = self.chance.choices(range(len(self.ids)), k=self.chance.randint(1, 3))
        new = self.cache.reorder(torch.tensor(rows))
        self.cache = self.cache if new is None else new
        self.take(rows)
        self.renew(self.stored)

    def take(self, rows):
        self.ids = self.ids[rows]

    def step(self):
        choices = ["feed"] * 2 + [n for n in ("truncate", "reorder") if hasattr(self.cache, n)]
        what = self.chance.choice(choices)
        if what != "feed":
            getattr(self, what)()
        elif self.stored < ROOM:
            self.feed(min(self.chance.choice([1, 1, 2, 3, 5, 9]), ROOM - self.stored))

    def finish(self):
        """Fill the cache to its last position, and see that one more does not go in."""
        while self.stored < ROOM:
            self.feed(self.chance.choice([1, ROOM - self.stored]))
        with pytest.raises(ERRORS):
            self.model(self.ids[:, :1], past_kv=self.cache, use_cache=True)


class PaddedText(Text):
    """A batch whose rows begin with padding, which is stored already together with a word."""

    def __init__(self, model, plain, chance):
        rows = chance.randint(1, 3)
        self.padding = [chance.randint(0, 9) for _ in range(rows)]
        super().__init__(model, plain, chance, rows)
        self.cache = model.padded_cache(torch.tensor(self.padding))
        self.feed(max(self.padding) + 1)

    def compare(self, found, part):
        for row, padding in enumerate(self.padding):
            begin = max(padding, part.start)
            expected = self.plain(self.ids[row : row + 1, padding:])[0][0, begin - padding :]
            close(found[row, begin - part.start :], expected[: max(0, part.stop - begin)])

    def take(self, rows):
        super().take(rows)
        self.padding = [self.padding[row] for row in rows]


def test_there_are_many_and_each_says_what_is_unusual():
    assert len(RIGHT) >= 34
    assert all(model_class.__doc__ for model_class in RIGHT.values())


@EVERY
@torch.no_grad()
def test_random_uses_give_the_uncached_logits(name):
    model, plain = models(name)
    chance = random.Random(name)
    for _ in range(ROUNDS):
        texts = [Text(model, plain, chance) for _ in range(2)]
        for _ in range(chance.randint(3, 7)):
            chance.choice(texts).step()
            if chance.random() < 0.2:
                text, part = chance.choice(texts), slice(chance.randint(1, ROOM))
                close(model(text.ids[:, part])[0], text.expected[:, part])
        for text in texts:
            text.finish()


@pytest.mark.parametrize("name", [n for n in RIGHT if hasattr(RIGHT[n], "padded_cache")])
@torch.no_grad()
def test_random_padded_batches_give_what_each_row_gives_alone(name):
    model, plain = models(name)
    chance = random.Random(name)
    for _ in range(ROUNDS):
        text = PaddedText(model, plain, chance)
        for _ in range(5):
            text.step()
        text.finish()


@pytest.mark.parametrize("name", [n for n in RIGHT if n != "no_generate"])
def test_generate_gives_the_same_with_and_without_the_cache(name):
    model, _ = models(name)
    for rows, length, new, temperature in ((2, 3, 4, 1.0), (2, 1, 4, 1e-8), (1, 20, 4, 1e-8)):
        found = []
        for use_cache in (True, False):
            torch.manual_seed(length)
            found.append(model.generate(random_ids(rows, length), new, temperature, use_cache))
        assert torch.equal(*found)


@pytest.mark.parametrize("name", [n for n in RIGHT if n != "locked_model"])
@torch.no_grad()
def test_a_copy_in_bfloat16_works_after_the_model_was_used(name):
    model, _ = models(name)
    model(random_ids(2, 7), use_cache=True)
    model = copy.deepcopy(model).bfloat16()
    plain = small_model(dtype=torch.bfloat16)
    plain.load_state_dict(model.state_dict())
    chance = random.Random(name)
    for _ in range(2):
        Text(model, plain, chance).finish()
