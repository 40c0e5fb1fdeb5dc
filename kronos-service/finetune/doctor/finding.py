"""What a check found."""

from typing import Final, Literal, NamedTuple

GB: Final = 10**9
Status = Literal["ok", "note", "fault"]


class Finding(NamedTuple):
    """What a check found: `note` leaves a run possible, `fault` does not."""

    status: Status
    text: str
    remedy: str = ""
    """What to do; empty where there is nothing, or where the text says it."""

    def line(self) -> str:
        """Text and remedy in one line."""
        return " ".join("; ".join(filter(None, (self.text, self.remedy))).split())
