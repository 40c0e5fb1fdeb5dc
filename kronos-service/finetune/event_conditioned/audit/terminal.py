"""What a person sees of an audit: the verdict, what was looked at, and the rows that show a fault."""

from typing import get_args

from rich.table import Table
from rich.text import Text

from kronos_service.data.plausibility import describe
from kronos_service.data.public_facts import AcceptedName
from kronos_service.data.snapshot.manifest import NOT_APPLICABLE
from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.audit.findings import LIVE_CHANNELS, Audit
from kronos_shared.progress import console, say

SHOWN = 8
"""Findings shown per check; the rest is counted."""


def show(audited: Audit, snapshot: Snapshot) -> None:
    """Print the audit of a snapshot."""
    kind = "quick audit" if audited.quick else "audit"
    console.print(f"{kind} of snapshot {snapshot.name} ({snapshot.sha256[:12]}), seed {audited.seed}")
    table = Table("check", "looked at", "findings", title="Audit")
    for check in audited.checks:
        count = Text(f"{len(check.findings):,}", style="red" if check.findings else "")
        table.add_row(check.name, f"{check.looked_at:,} {check.unit}", count)
    console.print(table)
    show_findings(audited)
    _show_departures(audited)
    if audited.dead_channels:
        names = ", ".join(audited.dead_channels)
        console.print(f"note: channels that never vary in the train split, and teach nothing: {names}")
    if audited.leaks:
        say("the rows above are not what could have been known", style="red", label="FAIL")
    elif audited.untrue:
        names = " ".join(sorted({one.name for one in audited.untrue} & set(get_args(AcceptedName))))
        remedy = f"; --accept {names} where it is meant" if names else ""
        say(
            f"nothing was known before its time, but the data cannot be true{remedy}",
            style="red",
            label="FAIL",
        )
    else:
        say("nothing was known before its time", style="green", label="pass")


def _show_departures(audited: Audit) -> None:
    """What differs from the world, in a line each."""
    if audited.departures is None:
        console.print(NOT_APPLICABLE, soft_wrap=True, highlight=False)
        return
    for line in describe(audited.departures, audited.accepted):
        say(line)


def show_findings(audited: Audit) -> None:
    """Print the first findings of each check that has any; dead channels are a note."""
    for check in audited.checks:
        if check.findings and check.name != LIVE_CHANNELS:
            table = Table("where", "what", "expected", "given", title=f"Findings: {check.name}")
            for finding in check.findings[:SHOWN]:
                table.add_row(*finding)
            console.print(table)
            if len(check.findings) > SHOWN:
                console.print(f"and {len(check.findings) - SHOWN:,} more")
