"""Right answers to the exercises of 01 to 06 that are written in another way than the course's."""

from . import n01, n02, n03, n04, n05, n06

OTHER_ANSWERS = {
    name: answers
    for part in (n01, n02, n03, n04, n05, n06)
    for name, answers in part.OTHER_ANSWERS.items()
}
