"""The course's toy language: little stories with questions whose answers are known.

People put things in places, move them, do other things, and now and then a question asks where a
thing is. Things move, so the latest place counts. In one story no two things share a noun or a
colour and no two places share a word, so "the red bell" has exactly one referent.

A story is a list of words; the tokenizer gives each word of the language one id.
"""

import difflib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

PAD, START, END = "<pad>", "<story>", "<end>"

_WORDS = {
    "name": "Mia Tom Ana Ben Leo Eva Max Zoe Sam Ida Jon Kim Lea Nils Ola Pia Rob Sue Tim Uma",
    "colour": "red blue green yellow black white brown pink purple grey golden silver orange "
    "striped spotted shiny",
    "object": "key ball book cup hat ring coin doll kite lamp bell comb drum flute glove map "
    "mirror pen pencil ribbon rope scarf shell spoon stone whistle watch button brush candle",
    "material": "wooden iron big small old tall round broken dusty painted",
    "container": "box chest basket drawer cupboard bag jar barrel bucket shed crate trunk",
    "site": "river garden market forest school village beach bridge mill farm station library "
    "park hill lake bakery",
    "food": "bread cheese soup milk honey cake jam rice pie butter",
    "animal": "dog cat horse fox owl duck goat hen mouse frog rabbit donkey",
    "size": "little huge fat thin young lazy clever noisy",
    "did": "ran slept waited jumped danced played rested sang",
    "manner": "quickly slowly quietly happily alone again",
    "mood": "happy tired hungry sad proud curious sleepy cheerful angry calm",
    "weather": "cold warm windy foggy bright dark wet dry",
    "daytime": "morning afternoon evening night",
    "art": "song poem letter joke riddle prayer",
    "artful": "funny sweet long short strange famous",
    "falls": "rain snow",
    "topic": "moon sea summer winter war king mountains stars",
}
WORDS = {slot: words.split() for slot, words in _WORDS.items()}

OPENINGS = [
    "{name} and {name} lived near the {site} .",
    "Once there were {name} and {name} .",
    "This is a story about {name} and {name} .",
]
FACTS = [
    "{name} put the {thing} in the {place} .",
    "{name} hid the {thing} in the {place} .",
    "{name} left the {thing} in the {place} .",
    "{name} took the {thing} and put it in the {place} .",
    "{name} found the {thing} and hid it in the {place} .",
    "{name} gave the {thing} to {name} , who left it in the {place} .",
    "The {thing} was now in the {place} .",
]
FILLERS = [
    "{name} walked to the {site} .",
    "{name} and {name} walked to the {site} .",
    "{name} told {name} a {artful} {art} .",
    "{name} wrote a {artful} {art} for {name} .",
    "{name} was {mood} .",
    "{name} was {mood} but {name} was {mood} .",
    "{name} asked {name} for some {food} .",
    "{name} saw a {size} {animal} near the {site} .",
    "The {animal} {did} {manner} .",
    "The {size} {animal} {did} near the {site} .",
    "The {daytime} was {weather} .",
    "The {daytime} was {weather} and {weather} .",
    "In the {daytime} {name} went home .",
    "They ate {food} and talked about the {topic} .",
    "{name} talked about the {topic} with {name} .",
    "{name} laughed and {name} laughed too .",
    "Later it began to {falls} .",
    "{name} bought some {food} and some {food} at the {site} .",
    "{name} helped {name} at the {site} .",
    "{name} dreamed about a {size} {animal} .",
]
QUESTION = "Where is the {thing} ?"
ANSWER = "It is in the {place} ."
OPENERS = ["Then", "Later", "Soon", "After that"]
TEMPLATES = [*OPENINGS, *FACTS, *FILLERS, QUESTION, ANSWER]
COMPOUND = {"thing": ("colour", "object"), "place": ("material", "container")}


def takes_opener(template: str) -> bool:
    """Whether "Then", "Later" and the like may come before the sentence."""
    return template.startswith("{name}") and template not in OPENINGS


def _vocabulary() -> list[str]:
    words = {w for words in WORDS.values() for w in words}
    words |= {w for t in TEMPLATES for w in t.split() if not w.startswith("{")}
    words |= {w for opener in OPENERS for w in opener.split()}
    return [PAD, START, END, *sorted(words)]


class Tokenizer:
    """One id per word of the language; `<pad>` is 0, `<story>` 1, `<end>` 2."""

    def __init__(self) -> None:
        self.words = _vocabulary()
        self.ids = {word: i for i, word in enumerate(self.words)}

    @property
    def vocab_size(self) -> int:
        return len(self.words)

    def encode(self, text: str | Sequence[str]) -> list[int]:
        """Ids of a text (or of its words). Raises ValueError on a word outside the language."""
        words = split(text) if isinstance(text, str) else text
        for word in words:
            if word not in self.ids:
                near = difflib.get_close_matches(word, self.words, n=3)
                hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
                raise ValueError(
                    f"{word!r} is not one of the {self.vocab_size} words of the toy language."
                    f"{hint} Tokenizer().words lists them."
                )
        return [self.ids[word] for word in words]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of some ids, punctuation joined to the word before it."""
        return re.sub(r" ([.,?])", r"\1", " ".join(self.words[int(i)] for i in ids))


def split(text: str) -> list[str]:
    """Words and punctuation marks of a text: "a key." and "a key ." are the same."""
    return re.findall(r"<\w+>|\w+|[^\w\s]", text)


@dataclass
class Question:
    """A question in a story: its answer is `words[start:end]`.

    `distance` counts the tokens from the place named in the latest fact to the place in the answer.
    """

    start: int
    end: int
    distance: int


@dataclass
class Story:
    words: list[str]
    questions: list[Question] = field(default_factory=list)


@dataclass
class _Thing:
    name: str
    place: str | None = None
    told_at: int = 0
    asked: bool = False


class _Teller:
    """Draws the people, things and places of one story, and its sentences."""

    def __init__(self, rng: random.Random, num_things: int):
        self.rng = rng
        self.names = rng.sample(WORDS["name"], rng.randint(2, 4))
        colours = rng.sample(WORDS["colour"], num_things)
        objects = rng.sample(WORDS["object"], num_things)
        self.things = [_Thing(f"{c} {o}") for c, o in zip(colours, objects, strict=True)]
        num_places = rng.randint(3, len(WORDS["material"]))
        materials = rng.sample(WORDS["material"], num_places)
        containers = rng.sample(WORDS["container"], num_places)
        self.places = [f"{m} {c}" for m, c in zip(materials, containers, strict=True)]

    def fill(self, template: str, **given: str) -> list[str]:
        names = self.rng.sample(self.names, 2)

        def word(match: re.Match) -> str:
            slot = match[1]
            if slot == "name":
                return names.pop()
            return given.get(slot) or self.rng.choice(WORDS[slot])

        sentence = re.sub(r"\{(\w+)\}", word, template)
        if takes_opener(template) and self.rng.random() < 0.2:
            sentence = f"{self.rng.choice(OPENERS)} {sentence}"
        return sentence.split()

    def askable(self) -> list[_Thing]:
        return [thing for thing in self.things if thing.place and not thing.asked]

    def fact(self, length: int, moves: float) -> list[str]:
        new = [thing for thing in self.things if not thing.place]
        old = [thing for thing in self.things if thing.place]
        thing = self.rng.choice(old if old and (not new or self.rng.random() < moves) else new)
        place = self.rng.choice([p for p in self.places if p != thing.place])
        words = self.fill(self.rng.choice(FACTS), thing=thing.name, place=place)
        thing.place, thing.asked = place, False
        thing.told_at = length + len(words) - 3
        return words


def make_story(
    rng: random.Random,
    length: int,
    filler: float = 0.5,
    gap: tuple[float, float] | None = None,
    moves: float = 0.4,
) -> Story:
    """A story of at most `length` tokens, `<story>` and `<end>` included.

    `filler` is the share of sentences that are neither fact nor question; `moves` the share of
    facts that move a thing while others still wait to appear. With a `gap` (a, b), facts come
    before the share a of the story and questions after the share b, so that many tokens lie
    between them; without, they are mixed. Each thing is asked for once per place, so that no
    answer can be copied from an earlier answer.
    """
    teller = _Teller(rng, rng.randint(2, max(2, min(10, length // 24))))
    facts_end, questions_start = gap or (1.0, 0.0)
    story = Story([START, *teller.fill(rng.choice(OPENINGS))])
    while True:
        at = len(story.words) / length
        asking = teller.askable() if at >= questions_start else []
        if rng.random() < filler or facts_end < at < questions_start:
            words = teller.fill(rng.choice(FILLERS))
        elif asking and (at > facts_end or rng.random() < 0.5):
            words = _ask(rng.choice(asking), story, length - 1)
        else:
            words = teller.fact(len(story.words), moves)
        if len(story.words) + len(words) >= length:
            return Story([*story.words, END], story.questions)
        story.words += words


def _ask(thing: _Thing, story: Story, room: int) -> list[str]:
    question = QUESTION.format(thing=thing.name).split()
    answer = ANSWER.format(place=thing.place).split()
    start = len(story.words) + len(question)
    if start + len(answer) <= room:
        thing.asked = True
        place_at = start + len(answer) - 3
        story.questions.append(Question(start, start + len(answer), place_at - thing.told_at))
    return question + answer


def held_out_stories(seed: int = 0, length: int = 1024) -> Iterator[Story]:
    """An endless stream of stories that training never sees (its seeds are other strings)."""
    rng = random.Random(f"held-out {seed}")
    while True:
        facts_end = rng.uniform(0.05, 0.3)
        gap = (facts_end, facts_end + rng.uniform(0.0, 0.6))
        yield make_story(rng, length, filler=rng.uniform(0.3, 0.9), gap=gap)


def _slot_pattern(slot: str) -> str:
    if slot in COMPOUND:
        return " ".join(_slot_pattern(part) for part in COMPOUND[slot])
    return f"(?:{'|'.join(WORDS[slot])})"


def _grammar() -> re.Pattern:
    opener = f"(?:(?:{'|'.join(OPENERS)}) )?"
    sentences = []
    for template in TEMPLATES:
        pattern = re.sub(r"\\\{(\w+)\\\}", lambda m: _slot_pattern(m[1]), re.escape(template))
        sentences.append(opener + pattern if takes_opener(template) else pattern)
    return re.compile("|".join(sentences).replace(r"\ ", " "))


_GRAMMAR = _grammar()


def is_sentence(words: Sequence[str]) -> bool:
    """Whether the words, final punctuation included, are one sentence of the language."""
    return _GRAMMAR.fullmatch(" ".join(words)) is not None


def sentences(words: Sequence[str]) -> list[list[str]]:
    """The words cut after each full stop or question mark, `<story>`, `<end>`, `<pad>` left out.

    Words after the last mark are an unfinished sentence and are left out too.
    """
    found, current = [], []
    for word in words:
        if word in (PAD, START, END):
            continue
        current.append(word)
        if word in ".?":
            found.append(current)
            current = []
    return found
