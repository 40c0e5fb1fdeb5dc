"""Base, snapshot and adapters: what a run reads, each loaded once."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from kronos_service.finetune.doctor.finding import Finding, Status
from kronos_service.finetune.event_conditioned.config import DoctorConfig
from kronos_shared.adapter_store import latest, latest_version
from kronos_shared.errors import KronosError

if TYPE_CHECKING:
    from kronos_service.data.snapshot.read import Snapshot
    from kronos_service.events.taxonomy import Taxonomy
    from kronos_service.model.factory import BaseChoice, Bundle


@dataclass(frozen=True)
class Inputs:
    """What a run of these settings would read."""

    config: DoctorConfig

    @cached_property
    def snapshot(self) -> "Snapshot":
        """Raises KronosError as `load_snapshot`."""
        from kronos_service.data.sample import sample_snapshot_path
        from kronos_service.data.snapshot.read import load_snapshot

        return load_snapshot(self.config.snapshot or sample_snapshot_path())

    @cached_property
    def choice(self) -> "BaseChoice":
        """The base that a run of these settings starts from."""
        from kronos_service.model.factory import BaseChoice

        return BaseChoice(
            model=self.config.base_model,
            tokenizer=self.config.tokenizer,
            revision=self.config.revision,
            tokenizer_revision=self.config.tokenizer_revision,
        )

    @cached_property
    def missing(self) -> Mapping[str, str]:
        """Repositories that a run would fetch from the hub, with their commits; raises BaseModelError."""
        from huggingface_hub import try_to_load_from_cache

        from kronos_service.model.factory import hub_repositories

        return {
            repo: revision
            for repo, revision in hub_repositories(self.choice).items()
            if not all(
                isinstance(try_to_load_from_cache(repo, name, revision=revision), str)
                for name in ("config.json", "model.safetensors")
            )
        }

    @property
    def needs_hub(self) -> bool:
        """Whether a run would fetch something; False where that cannot be told, as the base's line says."""
        try:
            return bool(self.missing)
        except Exception:
            return False

    @property
    def _taxonomy(self) -> "Taxonomy":
        """The snapshot's; the default one where it does not load, as the snapshot's line says."""
        from kronos_service.events.taxonomy import DEFAULT_TAXONOMY

        try:
            return self.snapshot.taxonomy
        except KronosError:
            return DEFAULT_TAXONOMY

    @cached_property
    def bundle(self) -> "Bundle":
        """The base, of which nothing is `missing`; raises BaseModelError."""
        return self.choice.load("cpu", self._taxonomy)


def check_base(inputs: Inputs) -> Finding:
    """Base and tokenizer: that they load, with their hashes; or what would be fetched."""
    if inputs.missing:
        from huggingface_hub import constants

        names = " and ".join(f"{repo} at {revision[:12]}" for repo, revision in inputs.missing.items())
        status: Status = "fault" if constants.HF_HUB_OFFLINE else "note"
        return Finding(status, f"not in the cache: {names}", "the first run fetches it, once the hub answers")
    bundle = inputs.bundle
    parts = [
        f"{one.repo}{f' at {one.revision[:12]}' if one.revision else ''} (sha256 {one.content_sha256[:12]})"
        for one in (bundle.base, bundle.tokenizer_print)
    ]
    return Finding("ok", f"{parts[0]}, tokenizer {parts[1]}, {bundle.context} bars of context")


def check_snapshot(inputs: Inputs) -> Finding:
    """That it loads, with its hash, its symbols and its last bar."""
    snapshot = inputs.snapshot
    symbols = set(snapshot.bars["symbol"])
    kind = ", SYNTHETIC" if snapshot.is_sample else ""
    text = (
        f"{snapshot.name} (sha256 {snapshot.sha256[:12]}{kind}), {len(symbols)} symbols with bars, "
        f"the last of {snapshot.bars['ts'].max():%Y-%m-%d}"
    )
    absent = [leader for leader in snapshot.taxonomy.leaders if leader not in symbols]
    if absent:
        return Finding("fault", f"{text}, none of leader {', '.join(absent)}", "export or import them too")
    if snapshot.flagged:
        return Finding(
            "note", f"{text}; tables without a manifest", "import makes a snapshot that is checked"
        )
    return Finding("ok", text)


def check_calendar(inputs: Inputs) -> Finding:
    """How far the calendar reaches: each target needs to know the releases of some days after it."""
    from kronos_service.events.calendar import calendar_reach, counted
    from kronos_service.events.encoder import REACH_DAYS

    try:
        snapshot = inputs.snapshot
    except KronosError:
        return Finding("note", "not known, because the snapshot does not load")
    rows = counted(snapshot.calendar, snapshot.taxonomy)
    currencies = ", ".join(snapshot.taxonomy.all_currencies)
    if rows.empty:
        return Finding("fault", f"the calendar has no {currencies} releases", "load them, then export again")
    reach = calendar_reach(snapshot.calendar, snapshot.taxonomy).item()
    last = snapshot.bars["ts"].max().date()
    text, needed = f"{len(rows):,} {currencies} rows until {reach}", last + timedelta(days=REACH_DAYS)
    if reach >= needed:
        return Finding("ok", f"{text}, at least {REACH_DAYS} days past the last bar")
    remedy = f"load the schedule until {needed}, or the last bars stay out of training"
    return Finding("note", f"{text}, less than {REACH_DAYS} days past the last bar", remedy)


def check_store(inputs: Inputs) -> Finding:
    """The adapter that LATEST names: that it is whole, fits the base, and computes what its trainer saw."""
    from kronos_service.model.adapter.read import compatibility_problems, load_adapter, read_adapter

    store = inputs.config.adapter_store
    place = f"{store}/"
    pointer, directory = latest(store), latest_version(store)
    if pointer is None or directory is None:
        return Finding("note", f"nothing is published in {place} yet", "event-lora publishes there")
    adapter = read_adapter(directory, digest=pointer.manifest_sha256)
    text = f"{place} serves {pointer.version}, generation {pointer.generation}, whose files are whole"
    try:
        bundle = None if inputs.missing else inputs.bundle
    except Exception:  # the base's line says why
        bundle = None
    if bundle is None:
        return Finding("note", text, "it cannot be tried until its base is here")
    if problems := compatibility_problems(adapter.manifest, bundle):
        return Finding("note", f"{text}, but {'; '.join(problems)}", "name its base with --base-model")
    load_adapter(adapter, bundle)
    return Finding("ok", f"{text} and compute what its trainer saw")
