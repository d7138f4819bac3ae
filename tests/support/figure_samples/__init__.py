"""Every figure of the course, drawn from made-up data of the shapes and sizes of the real ones."""

from . import core, drawn, flash, gpt2, parallel, serving, smaller, speed, wild

FIGURES = {
    name: sample
    for part in (core, drawn, speed, flash, smaller, serving, parallel, gpt2, wild)
    for name, sample in part.FIGURES.items()
}
