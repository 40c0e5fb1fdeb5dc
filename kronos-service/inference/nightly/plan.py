"""What one batch does, decided once: every chunk of it, in whichever process, follows the same plan."""

from dataclasses import dataclass, replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from kronos_service.events.sessions import DAILY
from kronos_service.inference.models.served_model import ServedModel, adapter_at, base_alone
from kronos_service.model.adapter.files import AdapterError
from kronos_service.model.adapter.read import require_interval
from kronos_service.model.factory import PACKAGED, BaseChoice


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Plain values only, so that it can be sent to another process or machine that sees the same paths."""

    tables: Path
    """A snapshot."""
    tables_sha256: str
    adapter: Path | None
    """The directory of one version; None is the base alone."""
    digest: str | None
    """sha256 of its manifest: a chunk is never computed by another."""
    base_model: str | None
    base_digest: str
    device: str
    horizon: int
    paths: int
    seed: int
    recalibrated: bool
    """Whether the adapter's width factors apply, where it has any."""
    with_base: bool
    """Whether the base alone forecasts too."""
    max_stale_sessions: int | None
    as_of: date | None
    """The evening of which the batch is; None is the present."""
    now: datetime
    """Sessions that close later are not known, nor is what became known later."""

    def at(self, now: datetime) -> "Plan":
        """The same plan at the time at which its batch began."""
        return replace(self, now=now)

    def facts(self) -> dict[str, Any]:
        """What decides the rows, for the file and for whoever resumes: where the inputs lie does not, nor
        does the time at which the same bars are read again.
        """
        return {
            "data_sha256": self.tables_sha256,
            "digest": self.digest,
            "base_digest": self.base_digest,
            "device": self.device,
            "horizon": self.horizon,
            "paths": self.paths,
            "seed": self.seed,
            "with_base": self.with_base,
            "max_stale_sessions": self.max_stale_sessions,
            "as_of": self.as_of and self.as_of.isoformat(),
            # as files of earlier versions have it, so that the same command still finds them done
            **({} if self.recalibrated else {"recalibrated": False}),
        }


def load_model(adapter: Path | None, *, base_model: str | None, device: str) -> ServedModel:
    """The model of an adapter directory, or the base alone.

    Raises:
        AdapterError, BaseModelError: it cannot be used.
    """
    base = None if base_model is None else BaseChoice(model=base_model)
    if adapter is None:
        return base_alone((base or BaseChoice(model=PACKAGED)).load(device))
    served = adapter_at(adapter, base=base, device=device)
    if served.manifest is not None:
        require_interval(served.manifest, DAILY, "forecast-all")
    return served


def planned_model(plan: Plan) -> ServedModel:
    """The plan's model, in a process that does not have it yet.

    Raises:
        AdapterError, BaseModelError: it cannot be used, or there is another one now in its place.
    """
    serving = load_model(plan.adapter, base_model=plan.base_model, device=plan.device)
    if (serving.digest, serving.base.base.content_sha256) != (plan.digest, plan.base_digest):
        raise AdapterError(f"{plan.adapter or 'the base'} has changed meanwhile: start the command again")
    return serving
