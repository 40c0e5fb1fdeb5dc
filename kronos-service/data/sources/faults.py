"""What is wrong with the rows of files, collected so that one run shows all of it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from kronos_shared.errors import KronosError

SHOWN = 4
"""Values shown of one fault; the rest is counted."""


def listed(values: pd.Series) -> str:
    """`'-' (row 3), '2,351' (row 5) and 7 more` of wrong values, whose index is the row."""
    head = values.head(SHOWN)
    shown = [f"{value!r} (row {row + 1})" for row, value in zip(head.index.tolist(), head, strict=True)]
    more = len(values) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


@dataclass
class Faults:
    """Faults in the order in which they were found."""

    found: list[KronosError] = field(default_factory=list)

    def add(self, *faults: KronosError) -> None:
        """Remember faults, to go on and find the others."""
        self.found += faults

    def refuse(self) -> None:
        """Raise the faults as one error, of the kind of the first; nothing if there are none."""
        if self.found:
            raise type(self.found[0])("; ".join(_distinct([str(one) for one in self.found])))


def _distinct(lines: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(lines))
