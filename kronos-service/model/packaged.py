"""The adapter that ships with the package: it has learned from the embedded sample market, and says so."""

from pathlib import Path
from typing import Final, TypeVar

Place = TypeVar("Place", bound=Path | str)

SAMPLE: Final = "sample"
"""Its name wherever an adapter is asked for; a directory of this name needs its whole path."""
SAMPLE_ADAPTERS: Final = Path(__file__).resolve().with_name("sample_adapters")  # no adapter is read by a link
"""A store with one version, as `event-lora --adapter-store` publishes it."""


def adapter_path(place: Place) -> Path | Place:
    """The same place, or that of the adapter that ships where its name was given."""
    return SAMPLE_ADAPTERS if str(place) == SAMPLE else place
