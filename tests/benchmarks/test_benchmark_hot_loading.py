"""Hot loading at the full size: how soon a publication serves, how long a flip takes, what a model costs."""

import os
import sys
import time
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
from kronos_shared.adapter_manifest import DataRecord, LoraRecord
from kronos_shared.adapter_store import publish

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

ADAPTERS = 6


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Kronos-base in shape, random in its weights."""
    preset = PRESETS["base"]
    path = tmp_path_factory.mktemp("base") / "full"
    torch.manual_seed(0)
    tokenizer, model = KronosTokenizer(**preset.tokenizer), Kronos(**preset.predictor)
    save_base(path, tokenizer, model, context=preset.context, preset="base", extra={})
    return path


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_publication_at_full_size_serves_within_seconds_and_flips_within_milliseconds(
    full_size: Path, tmp_path: Path
) -> None:
    bundle = load_bundle(str(full_size))
    data = DataRecord(snapshot="s", sha256="0" * 64, has_manifest=True, splits={})
    directories = []
    for seed in range(ADAPTERS):
        wrapped = adapt(bundle.model, lora=LoraRecord(rank=8, alpha=16, dropout=0.05), taps="both", seed=seed)
        with torch.no_grad():
            for _, parameter in trainable(wrapped):
                parameter.add_(0.01 * torch.randn_like(parameter))
        directory = tmp_path / f"adapter{seed}"
        save_adapter(
            wrapped, bundle, directory, context=512, data=data, metrics={}, gain="unknown", card="# card\n"
        )
        directories.append(directory)
    del wrapped
    store = tmp_path / "adapters"
    loader = AdapterLoader(store, state=tmp_path / "state", base=BaseChoice(model=str(full_size)))
    publish(directories[0], store, keep=9)
    loader.reload()
    loader.start()
    lags, flips, sizes = [], [], [resident_bytes()]
    for directory in directories[1:]:
        pointer = publish(directory, store, keep=9)
        while (serving := loader.current()) is None or serving.version != pointer.version:
            time.sleep(0.005)
        loader.look()  # waits for the end of the look that swapped
        status = loader.status()
        assert status.last_publish_to_live_seconds is not None
        assert status.last_flip_seconds is not None
        lags.append(status.last_publish_to_live_seconds)
        flips.append(status.last_flip_seconds)
        sizes.append(resident_bytes())
    loader.stop()
    print(  # noqa: T201
        f"publish to live {min(lags):.2f}-{max(lags):.2f} s with a poll every 2 s; "
        f"flip at most {1e6 * max(flips):.0f} us; "
        f"memory {' '.join(f'{size / 1e6:.0f}' for size in sizes)} MB"
    )
    assert max(flips) <= 0.010
    assert max(lags) <= 5.0
    one_base = sum(4 * tensor.numel() for tensor in bundle.model.parameters())
    assert sizes[-1] - sizes[0] < one_base  # no model has a base of its own, and only three are kept
