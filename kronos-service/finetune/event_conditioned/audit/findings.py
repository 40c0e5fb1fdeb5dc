"""What an audit finds, and its verdict."""

from dataclasses import dataclass
from typing import NamedTuple

from kronos_service.data.plausibility import Departure
from kronos_shared.adapter_manifest import AuditRecord

LIVE_CHANNELS = "live channels"
"""The one check that is not about look-ahead: a dead channel teaches nothing, and leaks nothing."""


class Finding(NamedTuple):
    """One row that shows a fault: where, what was expected there, and what the model is given."""

    where: str
    what: str
    expected: str
    given: str


class Check(NamedTuple):
    """One check: how much it looked at, in which unit, and its findings."""

    name: str
    looked_at: int
    unit: str
    findings: list[Finding]


@dataclass(frozen=True, kw_only=True)
class Audit:
    """All checks of one audit; a repetition with the same seed looks at the same positions."""

    checks: list[Check]
    quick: bool
    seed: int
    departures: tuple[Departure, ...] | None = ()
    """What differs from what is public about releases and markets; None where that does not apply."""
    accepted: tuple[str, ...] = ()
    """The names of departures that are meant."""

    @property
    def passed(self) -> bool:
        """Whether nothing is known before its time and nothing cannot be true."""
        return not self.leaks and not self.untrue

    @property
    def untrue(self) -> list[Departure]:
        """The departures that cannot be true and are not accepted."""
        return [one for one in self.departures or () if one.is_refused and one.name not in self.accepted]

    @property
    def dead_channels(self) -> list[str]:
        """The channels that never vary: a note, because they teach nothing and leak nothing."""
        return [one.what for check in self.checks if check.name == LIVE_CHANNELS for one in check.findings]

    def record(self) -> AuditRecord:
        """The verdict on look-ahead, for the manifest of what is trained on this data."""
        return AuditRecord(
            verdict="fail" if self.leaks else "pass",
            checked={check.name: check.looked_at for check in self.checks},
            findings=len(self.leaks),
            seed=self.seed,
        )

    @property
    def leaks(self) -> list[tuple[str, Finding]]:
        """The findings, with the name of their check, that may be look-ahead."""
        return [
            (check.name, one)
            for check in self.checks
            if check.name != LIVE_CHANNELS
            for one in check.findings
        ]
