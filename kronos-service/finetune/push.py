"""Upload an adapter to the Hugging Face hub, from where `hub:owner/name@commit` names it anywhere.

Run it with the command `push`:

    python -m kronos_service.finetune push adapters user/kronos-fomc
"""

import re
from typing import Final

from huggingface_hub import CommitOperationAdd, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from kronos_service.data.sample import is_synthetic
from kronos_service.finetune.config import PushConfig
from kronos_service.model.adapter.files import AdapterFiles, read_files
from kronos_service.model.adapter.hub import CARD
from kronos_service.model.adapter.read import find_adapter
from kronos_shared.adapter_location import HUB
from kronos_shared.adapter_manifest import MODEL_CARD
from kronos_shared.errors import KronosError
from kronos_shared.progress import say, working

TAGS: Final = ("kronos", "kronos-events", "lora", "finance", "time-series-forecasting")
MARK: Final = "SYNTHETIC: this adapter has learned from a sample market, and knows nothing of any real one."
LOGIN: Final = "log in with `hf auth login`, or set HF_TOKEN to a token that may write"


class PushError(KronosError):
    """The hub does not take the adapter."""


def push(config: PushConfig) -> str:
    """Check an adapter, upload its files in one commit, and return the name that this commit has.

    Raises:
        PushError: what the hub refuses or why it cannot be reached, and what to do; never the token.
        KronosError: there is no such adapter, or it is not whole.
    """
    files = read_files(find_adapter(config.adapter))
    content = files.content | {CARD: files.content[MODEL_CARD], MODEL_CARD: _card(files).encode()}
    operations = [CommitOperationAdd(name, one) for name, one in sorted(content.items())]
    api = HfApi(endpoint=constants.ENDPOINT)
    try:
        with working(f"uploading to {config.repo}"):
            api.create_repo(config.repo, private=not config.public, exist_ok=True)
            message = f"Adapter {files.digest[:12]}"
            commit = api.create_commit(config.repo, operations, commit_message=message).oid
    except Exception as error:  # the HTTP library's errors differ between hub versions
        raise _explained(config.repo, error) from None
    name = f"{HUB}{config.repo}@{commit}"
    if _is_synthetic(files):
        say(MARK, style="yellow")
    say(f"pushed adapter {files.digest[:12]}; it is named")
    say(name)
    return name


def _is_synthetic(files: AdapterFiles) -> bool:
    return is_synthetic(files.manifest.data.sha256, marked=files.manifest.data.synthetic)


def _card(files: AdapterFiles) -> str:
    """The hub's README.md: what its search reads, then the adapter's own card."""
    manifest, own = files.manifest, files.content[MODEL_CARD].decode(errors="replace")
    body = re.sub(r"\A---\n.*?\n---\n", "", own, flags=re.DOTALL)
    tags = [*TAGS, *(["synthetic"] if _is_synthetic(files) else [])]
    base = manifest.base.repo
    lines = ["library_name: peft", "pipeline_tag: time-series-forecasting", "tags:"]
    lines += [f"- {one}" for one in tags]
    if re.fullmatch(r"[\w.-]+/[\w.-]+", base):
        lines += [f"base_model: {base}", "base_model_relation: adapter"]
    mark = f"> {MARK}\n\n" if _is_synthetic(files) else ""
    front = "\n".join(lines)
    return f"---\n{front}\n---\n{mark}{body.lstrip()}\n{_usage(files)}"


def _usage(files: AdapterFiles) -> str:
    manifest = files.manifest
    revision = f" at {manifest.base.revision}" if manifest.base.revision else ""
    return f"""## Use

Made for base {manifest.base.repo}{revision}; sha256 of the manifest `{files.digest}`. Name it with the commit
of this repository that you have looked at: `hub:owner/name@commit` wherever a command of kronos-events takes
an adapter, or

```python
KronosEvents.from_adapter("hub:owner/name@commit")
```

`{CARD}` is the adapter's own card, as its manifest describes it.
"""


def _explained(repo: str, error: Exception) -> PushError:
    where = f"cannot push to {repo}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, OfflineModeIsEnabled):
        return PushError(f"{where}: HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, LocalTokenNotFoundError) or status == 401:
        return PushError(f"{where}: the hub knows no valid token of yours; {LOGIN}")
    if status == 403:
        return PushError(f"{where}: your token may not write there; {LOGIN}, or name a repository of yours")
    if status is not None:
        return PushError(f"{where}: the hub answers {status}; check the name, or try again later")
    return PushError(
        f"{where}: the hub cannot be reached ({type(error).__name__}); check the network, HF_ENDPOINT and "
        "HTTPS_PROXY"
    )
