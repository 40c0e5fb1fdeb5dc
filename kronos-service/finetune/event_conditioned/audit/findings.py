"""What an audit finds, and its verdict."""

from dataclasses import dataclass
from typing import NamedTuple

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

    @property
    def passed(self) -> bool:
        """Whether there is no finding at all."""
        return not any(check.findings for check in self.checks)

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
