"""What a training begins with is what its settings name."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from kronos_service.events.taxonomy import DEFAULT_TAXONOMY
from kronos_service.finetune.event_conditioned.config import EventLoraConfig
from kronos_service.finetune.event_conditioned.samples.splits import Span, SplitError
from kronos_service.finetune.event_conditioned.training.setup import prepare_training
from kronos_service.model.base_files import BaseModelError
from kronos_shared.cli import ConfigError


@pytest.fixture
def config(market_path: Path, base_path: Path) -> EventLoraConfig:
    return EventLoraConfig(snapshot=market_path, base_model=str(base_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_model": "nanno"}, "did you mean nano"),
        ({"revision": "main"}, "a revision belongs to a hub id"),
        ({"tokenizer": "desk/tokenizer"}, "no pinned revision of desk/tokenizer is known"),
        (
            {"tokenizer": "desk/tokenizer", "tokenizer_revision": "main"},
            "revision of desk/tokenizer must be a commit .* got 'main'",
        ),
    ],
)
def test_the_base_is_the_one_that_is_named(
    config: EventLoraConfig, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(BaseModelError, match=message):
        prepare_training(config.replace(**changes), {}, tmp_path)


@pytest.fixture
def first_accelerator() -> Iterator[None]:
    """The first one of a process fixes the precision of all."""
    AcceleratorState._reset_state(True)
    yield
    AcceleratorState._reset_state(True)


@pytest.mark.usefixtures("first_accelerator")
def test_windows_and_precision_are_those_that_are_asked_for(config: EventLoraConfig, tmp_path: Path) -> None:
    dates = {
        "train_start": date(2021, 6, 1),
        "train_end": date(2021, 12, 30),
        "val_start": date(2022, 2, 1),
        "test_start": date(2022, 6, 1),
        "test_end": date(2022, 8, 31),
    }
    config = config.replace(context=70, targets_per_window=5, precision="bf16", **dates)
    setup = prepare_training(config, config.split_dates(), tmp_path)
    assert setup.context == 70
    assert setup.accelerator.mixed_precision == "bf16"
    assert setup.snapshot.name == "snapshot"
    spans = {name: (split.first, split.last) for name, split in setup.splits.splits.items()}
    assert spans == {
        "train": (np.datetime64("2021-06-01"), np.datetime64("2021-12-30")),
        "val": (np.datetime64("2022-02-01"), np.datetime64("2022-05-31")),
        "test": (np.datetime64("2022-06-01"), np.datetime64("2022-08-31")),
    }
    assert [path.name for path in tmp_path.iterdir()] == ["token-cache"]
    for split in setup.splits.splits.values():
        assert max(window.stop - 1 - window.start for window in split.windows) == 70
        assert max(window.stop - window.first_target for window in split.windows) == 5


@pytest.mark.usefixtures("first_accelerator")
@pytest.mark.parametrize("context", [None, 72])
def test_windows_are_as_long_as_those_of_the_base_unless_shorter_ones_are_asked_for(
    config: EventLoraConfig, tmp_path: Path, context: int | None
) -> None:
    setup = prepare_training(config.replace(context=context), {}, tmp_path)
    assert setup.context == setup.bundle.context == 72
    assert setup.accelerator.mixed_precision == "no"  # `auto` on a CPU, whose base is narrow


def test_windows_longer_than_those_of_the_base_are_refused(config: EventLoraConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"at most 72, the longest window that base .*tiny was .* got 73"):
        prepare_training(config.replace(context=73), {}, tmp_path)


EMPTY: Span = (np.datetime64("2022-06-04"), np.datetime64("2022-06-05"))
"""A Saturday and a Sunday."""


@pytest.mark.usefixtures("first_accelerator")
@pytest.mark.parametrize("name", ["train", "val"])
def test_a_split_that_is_trained_on_or_scored_needs_event_days(
    config: EventLoraConfig, tmp_path: Path, name: str
) -> None:
    with pytest.raises(SplitError, match=f"the {name} split"):
        prepare_training(config, {name: EMPTY}, tmp_path)


@pytest.mark.usefixtures("first_accelerator")
def test_a_test_split_may_be_empty_as_long_as_nobody_looks(config: EventLoraConfig, tmp_path: Path) -> None:
    assert prepare_training(config, {"test": EMPTY}, tmp_path).splits.splits["test"].windows == []


@pytest.mark.usefixtures("first_accelerator")
def test_the_base_is_given_the_event_channels_of_the_market(
    config: EventLoraConfig, own_market_path: Path, tmp_path: Path
) -> None:
    setup = prepare_training(config.replace(snapshot=own_market_path), {}, tmp_path)
    assert setup.bundle.taxonomy == setup.snapshot.taxonomy != DEFAULT_TAXONOMY
