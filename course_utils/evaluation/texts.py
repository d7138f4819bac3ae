"""The tokens that scripts feed: texts that share beginnings, ends and single positions.

Caches go wrong where texts are alike: one that is looked up by its last tokens, a row that is
taken for its neighbour. So the texts differ from each other in few places, on purpose.

Shapes: N texts, R rows, T tokens, V vocab_size.
"""

import torch
from torch import Tensor

ROWS = 40
BLOCK = 8
RUN = 12
SAME_BEGINNINGS = (12, 40)


def texts(vocab_size: int, length: int, seed: int = 0) -> Tensor:
    """Token ids (N, R, T): text 0, and others that have more or less in common with it.

    Rows are random, but for three: row 1 differs from row 0 in its first token only, the last row
    has two ids only, and row 0 of text 2 runs through the vocabulary, from both ends. The texts:

    0. as it is
    1. another first token
    2. other blocks of 8, every second time
    3. the same first two tokens; other tokens in every second pair
    4. pieces of texts 0 and 2 in turn, four tokens of each
    5. every fourth token is another one
    6. the same tokens, every four of them in reversed order
    """
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(vocab_size, (ROWS, length), generator=generator)
    text[1, 1:] = text[0, 1:]
    text[1, 0] = (text[0, 0] + 1) % vocab_size
    text[-1] = torch.where(text[-1] * 2 < vocab_size, 0, vocab_size - 1)
    column = torch.arange(length)
    other = (text + 1 + column % max(vocab_size - 1, 1)) % vocab_size
    blocks = torch.where(column // BLOCK % 2 == 0, other, text)
    walk = column % vocab_size
    blocks[0] = torch.where(walk % 2 == 0, walk // 2, vocab_size - 1 - walk // 2)
    return torch.stack(
        [
            text,
            torch.where(column == 0, (text + 2) % vocab_size, text),
            blocks,
            torch.where(column % 4 < 2, text, other),
            torch.where(column // 4 % 2 == 0, text, blocks),
            torch.where(column % 4 == 3, other, text),
            text[:, (column - column % 4 + 3 - column % 4).clamp(max=length - 1)],
        ]
    )


def uniform(text: Tensor, vocab_size: int) -> Tensor:
    """Four texts more (4, R, T) that are like `text` (R, T).

    7. all rows are its first one
    8. every token comes twelve times in a row
    9. the same first 12 tokens, and then others
    10. the same first 40 tokens, and then others
    """
    column = torch.arange(text.size(1))
    others = (text + 1 + column % max(vocab_size - 1, 1)) % vocab_size
    longer = [torch.where(column < same, text, others) for same in SAME_BEGINNINGS]
    return torch.stack([text[:1].expand_as(text), text[:, column - column % RUN], *longer])


def texts_of(input_ids: Tensor, vocab_size: int) -> Tensor:
    """The rows (B, T) of a case and as many others, (2, 2B, T); in text 1 the others come first."""
    other = (input_ids + 1).flip(0, 1) % vocab_size
    return torch.stack([torch.cat([input_ids, other]), torch.cat([other, input_ids])])
