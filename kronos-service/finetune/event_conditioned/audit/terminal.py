"""What a person sees of an audit: the verdict, what was looked at, and the rows that show a fault."""

from rich.table import Table

from kronos_service.data.snapshot.read import Snapshot
from kronos_service.finetune.event_conditioned.audit.findings import Audit
from kronos_service.finetune.progress import console

SHOWN = 8
"""Findings shown per check; the rest is counted."""


def show(audited: Audit, snapshot: Snapshot) -> None:
    """Print the audit of a snapshot."""
    kind = "quick audit" if audited.quick else "audit"
    console.print(f"{kind} of snapshot {snapshot.name} ({snapshot.sha256[:12]}), seed {audited.seed}")
    table = Table("check", "looked at", "findings", title="Audit")
    for check in audited.checks:
        count = f"[red]{len(check.findings):,}[/]" if check.findings else "0"
        table.add_row(check.name, f"{check.looked_at:,} {check.unit}", count)
    console.print(table)
    show_findings(audited)
    if audited.passed:
        console.print("[green]pass[/]: nothing was known before its time")
    else:
        console.print("[red]FAIL[/]: the rows above are not what could have been known")


def show_findings(audited: Audit) -> None:
    """Print the first findings of each check that has any."""
    for check in audited.checks:
        if check.findings:
            table = Table("where", "what", "expected", "given", title=f"Findings: {check.name}")
            for finding in check.findings[:SHOWN]:
                table.add_row(*finding)
            console.print(table)
            if len(check.findings) > SHOWN:
                console.print(f"and {len(check.findings) - SHOWN:,} more")
