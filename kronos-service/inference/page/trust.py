"""What one version's manifest says of how far it can be trusted; what it does not hold is null."""

from pydantic import BaseModel, Field

from kronos_service.inference.models.served_model import ServedModel
from kronos_service.inference.page.gains import EvidenceOut, WalkForwardOut, validation_in, walk_forward_in
from kronos_service.inference.page.manifests import Published, read_card, read_published
from kronos_service.model.adapter.files import AdapterNotWholeError
from kronos_shared.adapter_manifest import AuditRecord, SourceRecord
from kronos_shared.adapter_store import Location


class TrainingOut(BaseModel):
    """What it was trained on."""

    snapshot: str
    sha256: str
    has_manifest: bool = Field(description="False: plain tables, hashed when they were read.")
    splits: dict[str, tuple[str, str]] = Field(description="Name, such as train -> first and last date.")


class TrustOut(BaseModel):
    """The evidence for one version."""

    version: str
    digest: str
    created_at: str
    synthetic: bool
    base: SourceRecord
    training: TrainingOut
    audit: AuditRecord | None = Field(description="Of look-ahead; null: the data was not audited.")
    validation: EvidenceOut | None = Field(description="Null: not recorded.")
    walk_forward: WalkForwardOut | None = Field(description="Null: not recorded.")
    card: str | None = Field(description="The model card, Markdown; null: it is not whole.")


def trust_of(adapters: Location, version: str, *, serving: ServedModel | None) -> TrustOut:
    """The evidence for a version; that of the one that serves is in memory, whatever the store holds by now.

    Raises:
        AdapterError: there is no such version, or its manifest is not whole.
    """
    found = _in_memory(serving, version) or read_published(adapters, version)
    manifest = found.manifest
    try:
        card = read_card(adapters, found)
    except AdapterNotWholeError:
        card = None
    return TrustOut(
        version=found.version,
        digest=found.digest,
        created_at=manifest.created_at,
        synthetic=found.is_synthetic,
        base=manifest.base,
        training=TrainingOut.model_validate(manifest.data.model_dump(exclude={"audit"})),
        audit=manifest.data.audit,
        validation=validation_in(manifest.metrics),
        walk_forward=walk_forward_in(manifest.metrics),
        card=card,
    )


def _in_memory(serving: ServedModel | None, version: str) -> Published | None:
    if serving is None or serving.version != version or serving.manifest is None or serving.digest is None:
        return None
    return Published(version=version, digest=serving.digest, manifest=serving.manifest)
