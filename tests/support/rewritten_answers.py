"""Wrong answers as the worked ones with some lines written otherwise."""

from mutated_answers import exercises, verdict


def refused(name: str, *changes: tuple[str, str]) -> str:
    """What the check of an exercise says of its worked answer with new text in place of old.

    Raises AssertionError if an old text is not in it, or if the check refuses nothing.
    """
    source = exercises()[name].answer
    for old, new in changes:
        assert old in source, f"{name} has no {old!r}"
        source = source.replace(old, new)
    word, said = verdict(name, source)
    assert word == "refused", f"{word}: {said}"
    return said
