"""An entry of the catalogue of wrong caches (notebook 05)."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..evaluation import refuse_missing_rows
from ..transformer import DecoderOnlyTransformer

TEACHING = "has shipped in a well-known teaching repository"
SOLUTION = "in a public solution of the original assignment"


@dataclass(frozen=True)
class CacheBug:
    """One way to get a cache wrong: what is done, what it leads to, where to look."""

    name: str
    mistake: str
    symptom: str
    look: str
    seen: str
    model_class: type[nn.Module]

    def build(self, reference: DecoderOnlyTransformer) -> nn.Module:
        """A model with this bug and the weights, dtype and device of `reference`."""
        vocab_size, d_model = reference.token_embedding.weight.shape
        d_ff = reference.layers[0].feed_forward.fc1.out_features
        shape = (vocab_size, d_model, d_ff, reference.num_layers, reference.max_seq_len)
        model = self.model_class(*shape, num_heads=reference.num_heads, dropout=0.0)
        model.load_state_dict(reference.state_dict())
        refuse_missing_rows(model)
        return model.to(device=reference.device, dtype=reference.dtype).eval()


def bug(
    bugs: list[CacheBug], name: str, mistake: str, symptom: str, look: str, seen: str = ""
) -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Add a model class to `bugs`, which its file offers to the catalogue."""

    def enter(model_class: type[nn.Module]) -> type[nn.Module]:
        bugs.append(CacheBug(name, mistake, symptom, look, seen, model_class))
        return model_class

    return enter
