"""Samples of the event-conditioned job (design letters: B batch, T bars in a window, P scored bars)."""

from collections.abc import Iterator, Sequence
from typing import TypedDict

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from kronos_service.events.taxonomy import Taxonomy
from kronos_service.finetune.event_conditioned.samples.series import Series
from kronos_service.finetune.event_conditioned.samples.tokens import Tokens, normalized_window
from kronos_service.finetune.event_conditioned.samples.windows import Window


def uncertain_channels(taxonomy: Taxonomy) -> tuple[int, ...]:
    """Surprise and leaders: a service cannot know them about bars further ahead, so training blanks them in
    some windows, for zeros to mean "unknown".
    """
    return (taxonomy.surprise, *range(taxonomy.first_leader, len(taxonomy.channels)))


class WindowInputs(TypedDict):
    """What a model reads of one window; position i predicts bar i + 1, and only the last ones are scored."""

    stamps: Tensor
    """(T, 5) int64: minute, hour, weekday, day, month."""
    events: Tensor
    """(T, C) float32."""
    s1_ids: Tensor
    s2_ids: Tensor
    s1_targets: Tensor
    s2_targets: Tensor
    """(T,) int64; targets are the ids one bar later."""
    loss_weight: Tensor
    """(T,) float32: 0 where not scored; its mean over the targets of the whole split is 1."""
    is_event: Tensor
    """(T,) bool: a high-impact event falls on the target."""
    index: int
    """The window's number in the dataset."""


class Sample(WindowInputs):
    """One window with the bars and dates that its ids and labels stand for."""

    ohlcv: Tensor
    """(T, 6) float32, z-scored."""
    target_dates: npt.NDArray[np.datetime64]
    """(T,) session date of each target."""


class TokenBatch(TypedDict):
    """Right-padded token windows and which of their positions are scored.

    Attention is causal, so no scored position sees the padding and no mask is needed.
    """

    stamps: Tensor
    s1_ids: Tensor
    s2_ids: Tensor
    s1_targets: Tensor
    """(B, T), or (B, T, 5) for the stamps."""
    positions: Tensor
    """(B, P) int64: the scored positions; where a window has fewer, padded with weight 0."""
    s2_targets: Tensor
    """(B, P) int64, at the positions."""


class Batch(TokenBatch):
    """What a training step reads."""

    events: Tensor
    """(B, T, len(CHANNELS)) float32."""
    weight: Tensor
    """(B, P) float32: the loss weight at the positions."""
    is_event: Tensor
    """(B, P) bool, at the positions."""
    index: Tensor
    """(B,) int64: the windows' numbers in the dataset."""


class EventConditionedDataset(Dataset[Sample]):
    """Windows of one split; `set_epoch` draws which of them are blanked."""

    def __init__(
        self,
        series: Sequence[Series],
        windows: Sequence[Window],
        tokens: Tokens,
        *,
        event_weight: float = 1.0,
        blank_probability: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.series = series
        self.windows = windows
        self.tokens = tokens
        self.event_weight = event_weight
        self.blank_probability = blank_probability
        self.seed = seed
        self.epoch = 0
        self.n_targets = sum(int(_scored(series, window).sum()) for window in windows)
        self.n_event_targets = sum(
            int((_scored(series, window) & _event(series, window)).sum()) for window in windows
        )
        events = self.n_event_targets
        self._mean_weight = (event_weight * events + self.n_targets - events) / max(self.n_targets, 1)

    def __len__(self) -> int:
        return len(self.windows)

    def set_epoch(self, epoch: int) -> None:
        """Draw the blanking of this epoch."""
        self.epoch = epoch

    def __getitem__(self, index: int) -> Sample:
        window = self.windows[index]
        return Sample(
            **self.inputs(index),
            ohlcv=torch.from_numpy(normalized_window(self.series, window)[:-1]),
            target_dates=self.series[window.series].dates[window.start + 1 : window.stop],
        )

    def inputs(self, index: int) -> WindowInputs:
        """The window without its bars: a model reads their tokens, and normalising them costs the most."""
        window = self.windows[index]
        one = self.series[window.series]
        length = window.stop - window.start
        s1, s2 = (
            torch.from_numpy(self.tokens[name][index, :length].astype(np.int64)) for name in ("s1", "s2")
        )
        weight = np.zeros(length - 1, dtype=np.float32)
        unscored = window.first_target - window.start - 1
        raw = np.where(_event(self.series, window), self.event_weight, 1.0) / self._mean_weight
        weight[unscored:] = raw * _scored(self.series, window)
        return WindowInputs(
            stamps=torch.from_numpy(one.stamps[window.start : window.stop - 1]),
            events=torch.from_numpy(self._events(index, window)),
            s1_ids=s1[:-1],
            s2_ids=s2[:-1],
            s1_targets=s1[1:],
            s2_targets=s2[1:],
            loss_weight=torch.from_numpy(weight),
            is_event=torch.from_numpy(one.is_event[window.start + 1 : window.stop]),
            index=index,
        )

    def batches(self, indices: Sequence[int], size: int) -> Iterator[Batch]:
        """The windows of these numbers in their order, `size` at a time."""
        for begin in range(0, len(indices), size):
            yield collate([self.inputs(index) for index in indices[begin : begin + size]])

    def _events(self, index: int, window: Window) -> npt.NDArray[np.float32]:
        one = self.series[window.series]
        events = one.events[window.start : window.stop - 1].copy()
        rng = np.random.default_rng((self.seed, self.epoch, index))
        if rng.random() < self.blank_probability:
            first_scored = window.first_target - window.start - 1
            uncertain = uncertain_channels(one.taxonomy)
            events[rng.integers(first_scored, len(events)) :, uncertain] = 0.0
        return events


def collate(samples: Sequence[WindowInputs]) -> Batch:
    """Right-pad windows of unequal length and gather what is scored."""
    lengths = [len(sample["s1_ids"]) for sample in samples]
    scored = [int((sample["loss_weight"] > 0).nonzero()[0, 0]) for sample in samples]
    width = max(length - first for length, first in zip(lengths, scored, strict=True))
    positions = torch.zeros(len(samples), width, dtype=torch.int64)
    real = torch.zeros(len(samples), width, dtype=torch.bool)
    for row, (length, first) in enumerate(zip(lengths, scored, strict=True)):
        positions[row, : length - first] = torch.arange(first, length)
        real[row, : length - first] = True

    def pad(name: str) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence([sample[name] for sample in samples], batch_first=True)  # type: ignore[literal-required]

    def at_positions(name: str) -> Tensor:
        return pad(name).gather(1, positions)

    return Batch(
        stamps=pad("stamps"),
        events=pad("events"),
        s1_ids=pad("s1_ids"),
        s2_ids=pad("s2_ids"),
        s1_targets=pad("s1_targets"),
        positions=positions,
        s2_targets=at_positions("s2_targets"),
        weight=at_positions("loss_weight") * real,
        is_event=at_positions("is_event") & real,
        index=torch.tensor([sample["index"] for sample in samples]),
    )


def _scored(series: Sequence[Series], window: Window) -> npt.NDArray[np.bool_]:
    return series[window.series].follows[window.first_target : window.stop]


def _event(series: Sequence[Series], window: Window) -> npt.NDArray[np.bool_]:
    return series[window.series].is_event[window.first_target : window.stop]
