"""Settings of the command scorecard."""

from pathlib import Path

from pydantic import Field

from kronos_shared.cli import Settings


class ScorecardConfig(Settings):
    """Settings of a track record."""

    forecasts: tuple[Path, ...] = Field(min_length=1)
    """directories of forecast files: of forecast-all, and the log of the service"""
    snapshot: Path | None = None
    """directory of a snapshot or of tables with what came; the embedded sample if left out"""
    out: Path = Path("scorecard")
    """directory for scorecard.html and scorecard.json"""
    alert: bool = False
    """exit with 1 when the coverage of the last days has left its band"""
    alert_days: int = Field(default=90, ge=1)
    """days whose coverage is judged, back from the latest bar that was forecast"""
