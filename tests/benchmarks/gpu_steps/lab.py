"""What a step of the report works with: a device, a shape, a clock and the figures."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from gpu_steps.figures import Figures

MOST_BYTES = 6 * 10**9
"""What the user's card may give."""
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "4090": 165e12, "4060": 30e12}
"""bf16 FLOP/s with dense matrices, by a part of the card's name."""
BANDWIDTHS = {"H100": 3350e9, "H200": 4800e9, "A100": 2039e9, "L4": 300e9, "4090": 1008e9, "4060": 272e9}
"""Bytes a second of its memory."""


@dataclass(frozen=True, kw_only=True)
class Lab:
    """Where a step measures: full size on a CUDA device, or small on a CPU."""

    figures: Figures
    step: str
    device: str
    dry_run: bool

    @classmethod
    def of(cls, figures: Figures, step: str, *, dry_run: bool) -> "Lab":
        return cls(figures=figures, step=step, device="cpu" if dry_run else "cuda", dry_run=dry_run)

    @property
    def preset(self) -> str:
        return "nano" if self.dry_run else "base"

    @property
    def context(self) -> int:
        """Bars of a window."""
        return 128 if self.dry_run else 512

    @property
    def card(self) -> str:
        return "CPU" if self.dry_run else torch.cuda.get_device_name()

    def peak(self, of: dict[str, float]) -> float | None:
        """The card's FLOP/s or bytes a second, where the table knows it."""
        return next((value for part, value in of.items() if part in self.card), None)

    def add(self, name: str, value: float | str, unit: str = "", about: str = "") -> None:
        """Record a figure."""
        self.figures.add(self.step, name, value, unit, about)

    def seconds(self, work: Callable[[], object], repeats: int = 1) -> float:
        """Mean seconds of some runs, until the device has done them."""
        self.wait()
        begun = time.perf_counter()
        for _ in range(repeats):
            work()
        self.wait()
        return (time.perf_counter() - begun) / repeats

    def kernel_seconds(self, work: Callable[[], object]) -> float:
        """Seconds that the device's own kernels take in one run of the work; 0 on a CPU."""
        activities = [torch.profiler.ProfilerActivity.CPU]
        if not self.dry_run:
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        with torch.profiler.profile(activities=activities) as profile:
            work()
            self.wait()
        kernels = [one for one in profile.key_averages() if one.device_type.name == "CUDA"]
        return float(sum(one.self_device_time_total for one in kernels)) / 1e6

    def wait(self) -> None:
        """Until the device has nothing to do."""
        if not self.dry_run:
            torch.cuda.synchronize()

    def cap_memory(self) -> None:
        """Let the allocator have no more than the user's card."""
        if not self.dry_run:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction(min(MOST_BYTES / total, 1.0))

    def memory(self) -> tuple[int, int]:
        """Most bytes allocated and reserved at once since `forget_memory`; 0 on a CPU."""
        if self.dry_run:
            return 0, 0
        return torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()

    def forget_memory(self) -> None:
        """Begin a new peak."""
        if not self.dry_run:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
