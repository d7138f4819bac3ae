"""Many users (chapter 10): what its rooms `scheduling` and `engine` hold, as `serving.<name>`."""

from .engine import DryEngine, Engine
from .scheduling import (
    Request,
    Requests,
    Schedule,
    StepTimes,
    continuous,
    measure,
    poisson,
    report,
    simulate,
    static,
)

__all__ = [
    "DryEngine",
    "Engine",
    "Request",
    "Requests",
    "Schedule",
    "StepTimes",
    "continuous",
    "measure",
    "poisson",
    "report",
    "simulate",
    "static",
]
