"""Plausible bugs, each a small edit of the package that its tests must catch.

Each is (name, file below gat_tf/, text that stands there once, what a mistake would put in its
place, tests below tests/ that catch it: arguments of pytest). `python -m tests.mutations` makes one
after the other in a copy of the repository, and names those that no test has noticed.
"""

from typing import NamedTuple

from . import attacks, evaluation, experiments, gradients, lab, models, training


class Mutation(NamedTuple):
    name: str
    file: str
    text: str
    replacement: str
    tests: str

    def applied(self, source: str) -> str:
        """The source with the bug in it.

        Raises:
            ValueError: The text does not stand there exactly once.
        """
        count = source.count(self.text)
        if count != 1:
            raise ValueError(f"{self.name}: {count} times in {self.file}: {self.text!r}")
        return source.replace(self.text, self.replacement)


ROOMS = (gradients, attacks, training, models, evaluation, lab, experiments)
MUTATIONS = [Mutation(*entry) for room in ROOMS for entry in room.MUTATIONS]
