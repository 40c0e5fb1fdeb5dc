"""The service on the device: requests, and adapters that change meanwhile."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_steps.job import random_base
from gpu_steps.lab import Lab
from load import clients
from replica import Replica, running

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable
from kronos_service.model.adapter.write import save_adapter
from kronos_service.model.factory import load_bundle
from kronos_shared.adapter_manifest import DataRecord, LoraRecord
from kronos_shared.adapter_store import publish

ADAPTERS, CLIENTS = 3, 16
SECONDS, DRY_SECONDS, BETWEEN_SWAPS = 20.0, 4.0, 1.0
"""A time and not a number of requests: how many a card answers is what is measured."""
MOST_REQUESTS = 100_000
BODIES: list[dict[str, Any]] = [
    {"series": [{"symbol": "SPY"}], "horizon": 5, "paths": 8, "seed": seed} for seed in range(4)
]


def run(lab: Lab) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        base = random_base(lab, directory)
        adapters = [adapter(lab, base, directory, seed) for seed in range(ADAPTERS)]
        serve(lab, "fp32", base, adapters, directory)
        if not lab.dry_run:  # the service rejects bf16 on a CPU
            serve(lab, "bf16", base, adapters, directory)


def adapter(lab: Lab, base: Path, directory: Path, seed: int) -> Path:
    """An adapter with random weights."""
    bundle = load_bundle(str(base))
    wrapped = adapt(bundle.model, lora=LoraRecord(rank=8, alpha=16, dropout=0.05), taps="both", seed=seed)
    with torch.no_grad():
        for _, parameter in trainable(wrapped):
            parameter.add_(0.01 * torch.randn_like(parameter))
    saved = directory / f"adapter-{seed}"
    data = DataRecord(snapshot="s", sha256="0" * 64, has_manifest=True, splits={})
    save_adapter(
        wrapped, bundle, saved, context=lab.context, data=data, metrics={}, gain="unknown", card="# card\n"
    )
    return saved


def serve(lab: Lab, precision: str, base: Path, adapters: list[Path], directory: Path) -> None:
    """Record latencies and failures of requests while adapters are published."""
    store = directory / f"store-{precision}"
    publish(adapters[0], store, keep=4)
    settings = {"device": lab.device, "precision": precision, "poll_seconds": "0.2"}
    replica = Replica(
        adapters=store,
        directory=directory / f"replica-{precision}",
        base=str(base),
        snapshot=sample_snapshot_path(),
        settings={**settings, "default_deadline_ms": "30000"},
    )
    lives: list[float] = []
    seconds = DRY_SECONDS if lab.dry_run else SECONDS
    begun = time.monotonic()
    with running(replica):
        lab.add(f"start to ready, {precision}", time.monotonic() - begun, "s")
        with clients(replica.url, BODIES, count=CLIENTS, most=MOST_REQUESTS) as load:
            begun = time.monotonic()
            while time.monotonic() < begun + seconds:
                pointer = publish(adapters[(len(lives) + 1) % len(adapters)], store, keep=4)
                lives.append(replica.wait_for(pointer.version))
                time.sleep(BETWEEN_SWAPS)
            took = time.monotonic() - begun
    latencies, failed = [one.seconds for one in load.sent], load.failed()
    about = f"{CLIENTS} clients, 5 bars, 8 paths; {len(latencies)} in {took:.0f} s"
    lab.add(f"requests a second, {precision}", len(latencies) / took, "", about)
    lab.add(
        f"requests that failed, {precision}", len(failed), "", str(failed[0].answer)[:100] if failed else ""
    )
    for quantile in (0.5, 0.99):
        latency = 1000 * np.quantile(latencies, quantile)
        lab.add(f"latency, {quantile:.0%} quantile, {precision}", latency, "ms")
    lab.add(f"publish to live at most, {precision}", max(lives), "s", f"{len(lives)} swaps")
    assert not failed
