"""Seconds of a forecast: fp32 and bf16, growing caches and CUDA graphs, beside recomputing everything."""

from dataclasses import replace

import torch
from gpu_steps.lab import Lab
from recomputing import Bench, Recomputing, random_bench

from kronos_service.model.generation.generate import History, generate
from kronos_service.model.generation.sampling import Sampling
from kronos_service.model.precision import in_bf16

HORIZONS = (32, 5)
NIGHTLY_SYMBOLS, NIGHTLY_PATHS, NIGHTLY_HORIZON = 16, 30, 5
DECODERS = {False: "growing caches", True: "fixed shapes"}
"""On a CUDA device fixed shapes are replayed as graphs."""


def run(lab: Lab) -> None:
    bars = 96 if lab.dry_run else 480
    paths = (1, 30) if lab.dry_run else (1, 30, 256)
    for horizon in HORIZONS:
        exact = random_bench(lab.preset, bars=bars, horizon=horizon, device=lab.device)
        rounded = replace(exact, model=in_bf16(exact.model))
        for number in paths:
            fastest = min(
                forecast(lab, bench, number, precision, static)
                for precision, bench in (("fp32", exact), ("bf16", rounded))
                for static in DECODERS
            )
            if horizon == HORIZONS[0]:
                recomputed(lab, exact, number, fastest)
    nightly(lab, rounded)


def forecast(lab: Lab, bench: Bench, paths: int, precision: str, static: bool) -> float:
    """Record the seconds of a forecast; the first one, which packs or captures, is told apart."""
    histories = [bench.history]
    first = lab.seconds(lambda: drawn(bench, histories, paths, static))
    seconds = lab.seconds(lambda: drawn(bench, histories, paths, static), repeats=1 if lab.dry_run else 3)
    name = f"{len(bench.history.x)} + {bench.horizon} bars, {paths} paths, {precision}, {DECODERS[static]}"
    lab.add(name, 1000 * seconds, "ms", f"the first {1000 * first:.0f} ms")
    return seconds


def drawn(bench: Bench, histories: list[History], paths: int, static: bool) -> None:
    generate(
        bench.tokenizer,
        bench.model,
        histories,
        horizon=bench.horizon,
        paths=paths,
        sampling=Sampling(),
        context=len(bench.history.x) + bench.horizon,
        static=static,
    )


def recomputed(lab: Lab, bench: Bench, paths: int, fastest: float) -> None:
    """Record what the recomputing way takes, by its first and last step, and how much faster ours is."""
    recomputing = Recomputing(bench, paths, lab.seconds)
    recomputing.sampled()
    seconds = recomputing.sampled()
    lab.add(f"recomputing, {bench.horizon} bars, {paths} paths, fp32", 1000 * seconds, "ms")
    lab.add(f"our fastest over it, {paths} paths", seconds / fastest, "x")


def nightly(lab: Lab, bench: Bench) -> None:
    """Record how many symbols an hour forecasts of a few bars for all of them come to."""
    assert bench.horizon == NIGHTLY_HORIZON
    histories = [
        replace(bench.history, x=torch.randn_like(bench.history.x), seed=seed)
        for seed in range(2 if lab.dry_run else NIGHTLY_SYMBOLS)
    ]
    for static, name in DECODERS.items():
        drawn(bench, histories, NIGHTLY_PATHS, static)
        seconds = lab.seconds(lambda static=static: drawn(bench, histories, NIGHTLY_PATHS, static))  # type: ignore[misc]
        lab.add(f"nightly batch, bf16, {name}", 3600 * len(histories) / seconds, "symbols/hour")
