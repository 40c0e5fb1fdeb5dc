"""An adapter from the hub: one version's files at the root of a repository, at a commit."""

import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from kronos_service.model.adapter.files import AdapterFiles, read_files
from kronos_service.model.base_files import hub_file, require_commit
from kronos_shared.adapter_manifest import FILES, MANIFEST


def hub_adapter(repo: str, revision: str | None) -> AdapterFiles:
    """The files of an adapter in a hub repository, held against its manifest like those of a directory.

    Raises:
        BaseModelError: no commit, no such repository or file, or no network.
        AdapterError: other files than the manifest describes.
    """
    commit = require_commit(repo, revision)
    with TemporaryDirectory() as folder:
        for name in (MANIFEST, *FILES):
            # the hub's cache holds links, which no adapter is read by
            shutil.copyfile(hub_file(repo, name, commit), Path(folder) / name)
        return replace(read_files(Path(folder)), directory=Path(f"{repo}@{commit[:12]}"))
