"""Reload after reload, the service's memory stays what it was."""

import os
import sys
from pathlib import Path

import pytest
import torch

from kronos_service.finetune.event_conditioned.training.lora import adapt, trainable
from kronos_service.inference.models.loader import AdapterLoader
from kronos_service.model.adapter.write import save_adapter
from kronos_service.model.factory import BaseChoice, load_bundle, save_base
from kronos_service.model.kronos import Kronos
from kronos_service.model.presets import PRESETS
from kronos_service.model.tokenizer import KronosTokenizer
from kronos_shared.adapter_manifest import LATEST, DataRecord, Latest, LoraRecord
from kronos_shared.adapter_store import publish

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]

RELOADS = 100 * int(os.environ.get("SOAK", "1"))
SETTLED = 50
WIDTH = 384
"""Each model of its own then holds 8 MB (3 layers, q and v, and the event embedding): one that leaked at each
of 50 reloads would be seen."""


@pytest.fixture
def wide_base(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    nano = PRESETS["nano"]
    tokenizer = KronosTokenizer(**{**nano.tokenizer, "d_model": 16, "ff_dim": 32})
    model = Kronos(**{**nano.predictor, "d_model": WIDTH, "n_heads": 4, "ff_dim": 64})
    save_base(tmp_path / "wide", tokenizer, model, context=72, preset="nano", extra={})
    return tmp_path / "wide"


def publish_some(base: Path, store: Path, root: Path) -> list[Latest]:
    """One adapter more than stay resident, so that every reload has to load."""
    bundle = load_bundle(str(base))
    data = DataRecord(snapshot="s", sha256="0" * 64, has_manifest=True, splits={})
    pointers = []
    for seed in range(4):
        wrapped = adapt(bundle.model, lora=LoraRecord(rank=4, alpha=8, dropout=0.0), taps="both", seed=seed)
        with torch.no_grad():
            for _, parameter in trainable(wrapped):
                parameter.add_(0.02 * torch.randn_like(parameter))
        adapter = root / f"adapter{seed}"
        save_adapter(
            wrapped, bundle, adapter, context=72, data=data, metrics={}, gain="unknown", card="# card\n"
        )
        pointers.append(publish(adapter, store, keep=9))
    return pointers


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_grows_by_less_than_a_twentieth_after_the_first_fifty_reloads(
    wide_base: Path, tmp_path: Path
) -> None:
    store = tmp_path / "adapters"
    pointers = publish_some(wide_base, store, tmp_path)
    loader = AdapterLoader(store, state=tmp_path / "state", base=BaseChoice(model=str(wide_base)))
    sizes = []
    for number in range(RELOADS):
        pointer = pointers[number % len(pointers)].model_copy(update={"generation": 10 + number})
        (store / LATEST).write_bytes(pointer.to_bytes())
        status = loader.reload()
        assert status.reason is None
        assert status.serving is not None
        assert status.serving.version == pointer.version
        sizes.append(resident_bytes())
    assert loader.status().counters.loads == RELOADS
    growth = max(sizes[SETTLED:]) / sizes[SETTLED - 1]
    print(f"{sizes[SETTLED - 1] / 1e6:.0f} MB after {SETTLED} reloads, at most x {growth:.3f} in {RELOADS}")  # noqa: T201
    assert growth < 1.05
