"""Event-conditioned Kronos: fine-tuning and serving."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kronos_service.forecaster import KronosEvents, sample_frames

__all__ = ["KronosEvents", "sample_frames"]


def __getattr__(name: str) -> object:
    """The front door, imported when first asked for: `--help` must not pay for torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from kronos_service import forecaster

    return getattr(forecaster, name)
