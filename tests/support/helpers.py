"""Small random models and cases for the tests."""

import torch

from course_utils.evaluation import TestCase, uncached
from course_utils.transformer import DecoderOnlyTransformer

SMALL = {
    "vocab_size": 50,
    "d_model": 16,
    "d_ff": 32,
    "num_layers": 2,
    "max_seq_len": 24,
    "num_heads": 2,
}


def small_model(cls=DecoderOnlyTransformer, seed=0, dtype=torch.float64, **changes):
    """A model with random weights, larger than usual so that attention is not nearly uniform."""
    torch.manual_seed(seed)
    model = cls(**(SMALL | changes), dropout=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.to(dtype).eval()


def random_ids(batch, seq_len, vocab_size=SMALL["vocab_size"], seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(vocab_size, (batch, seq_len), generator=generator)


def cases_for(model, shapes=((1, 1), (1, 7), (3, 9)), seed=0):
    """Test cases whose stored logits come from the model's own uncached pass."""
    cases = []
    for number, (batch, seq_len) in enumerate(shapes):
        ids = random_ids(batch, seq_len, seed=seed + number)
        logits = uncached(model, ids)
        cases.append(TestCase(ids, logits, logits, logits))
    return cases
