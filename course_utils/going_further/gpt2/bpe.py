"""Byte-pair encoding, GPT-2's way from text to token ids (chapter 12).

A text is cut into words, a word into bytes, and then the pair of neighbours that occurs most often
becomes one piece, again and again. GPT-2 writes each of the 256 bytes as one visible character (a
space is Ġ), so that a piece is a `str`.

Source: Sennrich, Haddow & Birch, "Neural Machine Translation of Rare Words with Subword Units",
2016, algorithm 1; Radford et al., "Language Models are Unsupervised Multitask Learners", 2019,
section 2.2, for the bytes.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

Pair = tuple[str, str]
END = "<|endoftext|>"
BYTES = sorted(pre_tokenizers.ByteLevel.alphabet())


def merge_pair(pieces: Sequence[str], pair: Pair) -> list[str]:
    """The pieces with each occurrence of the pair, from left to right, as one piece."""
    merged, i = [], 0
    while i < len(pieces):
        together = tuple(pieces[i : i + 2]) == pair
        merged.append("".join(pieces[i : i + 1 + together]))
        i += 1 + together
    return merged


def learn_merges(words: Mapping[str, int], num_merges: int) -> list[Pair]:
    """The first merges, most frequent pair first, of a text given as words and their counts.

    Of pairs that occur equally often, that of the lower ids is taken: bytes first, then pieces as
    they were made. Ends early when no word has two pieces any more.
    """
    ids = {byte: i for i, byte in enumerate(BYTES)}
    split = {word: list(word) for word in words}
    merges = []
    while len(merges) < num_merges:
        pairs = Counter()
        for word, pieces in split.items():
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], ids[pair[0]], ids[pair[1]]))
        merges.append(best)
        ids.setdefault("".join(best), len(ids))
        split = {word: merge_pair(pieces, best) for word, pieces in split.items()}
    return merges


def split_word(word: str, merges: Sequence[Pair]) -> list[str]:
    """The pieces of a word: all merges, in the order in which they were learnt."""
    pieces = list(word)
    for pair in merges:
        pieces = merge_pair(pieces, pair)
    return pieces


def load_tokenizer(folder: Path | str) -> Tokenizer:
    """The tokenizer in a folder of the hub's form: tokenizer.json, or vocab.json and merges.txt.

    Raises FileNotFoundError if there is neither.
    """
    folder = Path(folder)
    if (folder / "tokenizer.json").exists():
        return Tokenizer.from_file(str(folder / "tokenizer.json"))
    files = [folder / "vocab.json", folder / "merges.txt"]
    if not all(path.exists() for path in files):
        raise FileNotFoundError(
            "The folder holds no tokenizer: expected tokenizer.json, or vocab.json and merges.txt."
        )
    tokenizer = Tokenizer(models.BPE.from_file(*map(str, files)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    if tokenizer.token_to_id(END) is not None:
        tokenizer.add_special_tokens([END])
    return tokenizer
