"""Merge an adapter's LoRA into its base and leave: a base for code that knows nothing of events.

`load_bundle` reads the directory. Its predictor/ and tokenizer/ have the config keys, tensor names and dtypes
of the released weights, so upstream's `from_pretrained` reads them too.

    python -m kronos_service.finetune merge adapters --out merged
"""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

from kronos_service.data.sample import is_synthetic
from kronos_service.finetune.config import MergeConfig
from kronos_service.finetune.event_conditioned.provenance import unseen_from
from kronos_service.model.adapter.files import AdapterError
from kronos_service.model.adapter.read import (
    Adapter,
    LoadedAdapter,
    find_adapter,
    load_adapter,
    read_adapter,
    taxonomy_named_by,
)
from kronos_service.model.factory import BaseChoice, Bundle, base_named_by, save_base
from kronos_service.model.presets import PRESETS
from kronos_shared.atomic import new_directory
from kronos_shared.cli import ConfigError, require_writable
from kronos_shared.errors import KronosError
from kronos_shared.progress import say

README = "README.md"


class MergeError(KronosError):
    """The merged base could not be written; nothing of it is left."""


def merge(config: MergeConfig) -> None:
    """Check the adapter and its canary, and write its base with LoRA merged, whole or not at all.

    The event embedding is left out: the merged base computes what the adapted model does with `events=None`,
    and README.md beside it says what that loses.

    Raises:
        KronosError: anything the user can fix, named by its subclass.
    """
    if config.out.exists() or config.out.is_symlink():
        raise ConfigError(f"--out must be a new directory, and {config.out} exists: choose another")
    require_writable(config.out, "--out")
    adapter = read_adapter(find_adapter(config.adapter))
    named = config.base_model
    base = base_named_by(adapter.manifest) if named is None else BaseChoice(model=named)
    bundle = base.load("cpu", taxonomy_named_by(adapter.manifest))
    record = _record(adapter, bundle)
    loaded = load_adapter(adapter, bundle)
    try:
        _write(config.out, loaded, bundle, record)
    except OSError as error:
        raise MergeError(
            f"cannot write {config.out} ({error.strerror or error}): make room, or choose another --out"
        ) from error
    say(f"{config.out}: base {bundle.base.repo} with the LoRA of adapter {adapter.digest[:12]} merged")
    for line in _losses(adapter):
        say(line)


def _write(out: Path, loaded: LoadedAdapter, bundle: Bundle, record: dict[str, Any]) -> None:
    model = loaded.merged
    model.event_emb = None
    shapes = {name: dict(preset.predictor) for name, preset in PRESETS.items()}
    preset = next((name for name, shape in shapes.items() if shape == model.config), bundle.base.repo)
    with new_directory(out) as scratch:
        save_base(scratch, bundle.tokenizer, model, loaded.context, preset, record)
        (scratch / README).write_text(_readme(out.name, loaded, bundle), encoding="utf-8")


def _record(adapter: Adapter, bundle: Bundle) -> dict[str, Any]:
    """What joins base.json: where the weights came from, and until when they have seen bars."""
    manifest = adapter.manifest
    merged = {
        "adapter": adapter.directory.resolve().name,
        "manifest_sha256": adapter.digest,
        "base": manifest.base.model_dump(),
        "tokenizer": manifest.tokenizer.model_dump(),
        "data": {"snapshot": manifest.data.snapshot, "sha256": manifest.data.sha256},
    }
    until = _unseen_from(adapter, bundle)
    return {"merged": merged, "settings": {"until": until and until.isoformat()}}


def _unseen_from(adapter: Adapter, bundle: Bundle) -> date | None:
    """The date from which on neither the base nor the training has seen a bar; None where nobody knows."""
    of_base, train = unseen_from(bundle), adapter.manifest.data.splits.get("train")
    if of_base is None or train is None:
        return None
    try:
        return max(of_base, date.fromisoformat(train[1]) + timedelta(days=1))
    except ValueError:
        raise AdapterError(
            f"{adapter.directory}: the manifest's train split must end on a date, got {train[1][:80]!r}"
        ) from None


def _losses(adapter: Adapter) -> list[str]:
    """What the merged base does not have, one sentence each."""
    manifest = adapter.manifest
    events, lora = (
        sum(tensor.numel() for tensor in part.values()) for part in (adapter.event_emb, adapter.lora)
    )
    lines = [
        f"Lost: the event embedding, {events:,} of the {events + lora:,} numbers that were trained. "
        "Calendar, surprises, leaders and what-ifs change nothing any more: every day is forecast as if "
        "nothing were scheduled.",
        "It answers as the adapted model does with events None. LoRA and event embedding were trained "
        "together, so no figure of the adapter's card or report holds for it, and it may be worse than its "
        "base: score it before you use it.",
    ]
    if manifest.recalibration is not None:
        lines.append("Lost: the adapter's width factors, which belong to forecasts with events.")
    if is_synthetic(manifest.data.sha256, marked=manifest.data.synthetic):
        lines.append(
            "SYNTHETIC: the adapter has learned from a sample market, and knows nothing of any real one."
        )
    return lines


def _readme(name: str, loaded: LoadedAdapter, bundle: Bundle) -> str:
    digest, losses = loaded.adapter.digest, "\n".join(f"- {line}" for line in _losses(loaded.adapter))
    return f"""# {bundle.base.repo} with LoRA merged, without events

The weights of {bundle.base.repo} ({bundle.base.content_sha256[:12]}) with the LoRA of adapter {digest[:12]}
merged, and its tokenizer unchanged. `base.json` says where both come from.

{losses}

## Loading

With the code of https://github.com/shiyu-coder/Kronos:

```python
from model import Kronos, KronosPredictor, KronosTokenizer

tokenizer = KronosTokenizer.from_pretrained("{name}/tokenizer")
model = Kronos.from_pretrained("{name}/predictor")
predictor = KronosPredictor(model, tokenizer, max_context={loaded.context})
```

With kronos_service, the directory is a base like any other: `load_bundle("{name}")`, or
`--base-model {name}`. Its adapter fits its own base only, so it cannot be put on this one again.
"""
