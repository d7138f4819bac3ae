"""Ways in which a cache goes wrong, each a few lines on top of the right one (notebook 05).

`CATALOGUE` holds them by name. `diagnose` tells which of them a wrong model behaves like; `survey`,
`symptoms` and `looks` show how a wrong one shows.
"""

from .catalogue import CATALOGUE
from .contents import KeysOnlyModel, PromptDropped, WholeSequenceAgain
from .diagnosis import Diagnosis, diagnose
from .entry import CacheBug
from .instruments import looks, survey, symptoms
from .masks import NoMaskOffsetModel
from .models import WithAttention, WithCache
from .positions import NoPositionOffset
from .probes import LEAST_ROOM, Probe, outcomes, probes

__all__ = [
    "CATALOGUE",
    "LEAST_ROOM",
    "CacheBug",
    "Diagnosis",
    "KeysOnlyModel",
    "NoMaskOffsetModel",
    "NoPositionOffset",
    "Probe",
    "PromptDropped",
    "WholeSequenceAgain",
    "WithAttention",
    "WithCache",
    "diagnose",
    "looks",
    "outcomes",
    "probes",
    "survey",
    "symptoms",
]
