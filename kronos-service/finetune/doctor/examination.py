"""Runs the checks and prints what they find."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

from rich.text import Text

from kronos_service.finetune.doctor.finding import Finding
from kronos_service.finetune.doctor.hub import check_hub
from kronos_service.finetune.doctor.inputs import (
    Inputs,
    check_base,
    check_calendar,
    check_snapshot,
    check_store,
)
from kronos_service.finetune.doctor.machine import (
    check_device,
    check_disk,
    check_keys,
    check_machine,
    check_torch,
)
from kronos_service.finetune.event_conditioned.config import DoctorConfig
from kronos_shared.adapter_location import StoreUrl
from kronos_shared.errors import KronosError
from kronos_shared.progress import console, working

COLORS: Final = {"ok": "green", "note": "yellow", "fault": "red"}


def doctor(config: DoctorConfig) -> bool:
    """Print what each check finds, a line each, and return whether none is a fault."""
    found = []
    with working("looking at this machine"):
        for name, finding in examine(config):
            found.append(finding)
            line = Text.assemble(
                (f"{finding.status:<6}", COLORS[finding.status]), f"{name:<10}{finding.line()}"
            )
            console.print(line, soft_wrap=True)
    return all(finding.status != "fault" for finding in found)


def examine(config: DoctorConfig) -> Iterator[tuple[str, Finding]]:
    """The name and the finding of each check; none of them raises."""
    for name, check in _checks(config).items():
        try:
            finding = check()
        except KronosError as error:
            finding = Finding("fault", str(error))
        except Exception as error:  # one check that fails hides no other; its words may hold a secret
            finding = Finding(
                "fault", f"cannot be checked ({type(error).__name__})", "install the package again"
            )
        yield name, finding


def _places(store: Path | StoreUrl) -> list[Path]:
    """The directories that a run writes to."""
    return [Path("runs"), *([store] if isinstance(store, Path) else [])]


def _checks(config: DoctorConfig) -> Mapping[str, Callable[[], Finding]]:
    inputs = Inputs(config)
    return {
        "torch": check_torch,
        "device": lambda: check_device(config.device),
        "machine": check_machine,
        "disk": lambda: check_disk(_places(config.adapter_store)),
        "hub": lambda: check_hub(inputs.needs_hub),
        "base": lambda: check_base(inputs),
        "snapshot": lambda: check_snapshot(inputs),
        "calendar": lambda: check_calendar(inputs),
        "adapters": lambda: check_store(inputs),
        "keys": check_keys,
    }
