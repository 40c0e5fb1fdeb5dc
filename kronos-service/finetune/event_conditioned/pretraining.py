"""What the released bases had seen before this project met them."""

from datetime import date
from typing import Final

from kronos_service.model.presets import PRESETS

FIRST_UNSEEN: Final = date(2024, 6, 1)
"""They were pretrained on data to February 2024; some months lie between for safety."""


def out_of_sample(base: str, first: date) -> str:
    """One sentence on whether targets from `first` on are new to a base, by its repository's name."""
    released = {preset.hub_id for preset in PRESETS.values() if preset.hub_id}
    if base not in released:
        return f"What {base} was pretrained on stands in its base.json, not here."
    if first < FIRST_UNSEEN:
        return (
            f"NOT out of sample: {base} was pretrained on data to February 2024, and these targets begin on "
            f"{first}, before {FIRST_UNSEEN}."
        )
    return f"{base} was pretrained on data to February 2024: targets from {first} on are new to it."
