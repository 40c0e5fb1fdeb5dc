"""`serve --demo`: the page on the sample market, for this machine only and without keys."""

import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import torch

from kronos_service.inference.models.served_model import adapter_at
from kronos_service.inference.settings import PREFIX, Settings, SettingsError, check_names, load_settings
from kronos_service.model.factory import PACKAGED, BaseChoice
from kronos_service.model.packaged import SAMPLE_ADAPTERS
from kronos_shared.adapter_location import HubName
from kronos_shared.adapter_store import StoreError, latest_version
from kronos_shared.errors import KronosError

LOCAL_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
REPLACED: Final[dict[str, Any]] = {
    **{"api_keys": (), "admin_keys": (), "api_keys_file": None, "admin_keys_file": None, "key_limits": {}},
    **{"source": "snapshot", "snapshot": None, "base_model": None, "tokenizer": None},
    **{"state_dir": None, "served_log": None, "allow_base_only": False, "cors_origins": (), "ui": True},
}
"""What a demo does not take from the environment."""


@contextmanager
def demo_settings() -> Iterator[Settings]:
    """The settings of a demo: address, adapters and limits are the environment's; nothing is kept after it.

    Raises:
        SettingsError: the host is not this machine alone, or a variable is unknown or not valid.
    """
    check_names(os.environ)
    # the packaged base is small: threads win nothing, and cost tenfold where another process has a core
    torch.set_num_threads(1)
    unused = [variable for name in REPLACED if (variable := PREFIX + name.upper()) in os.environ]
    if unused:
        _say(f"not used by the demo: {', '.join(unused)}")
    with tempfile.TemporaryDirectory(prefix="kronos-demo-") as state:
        # the service needs a key, and nobody knows this one
        own = {"api_keys": (secrets.token_hex(24),), "state_dir": Path(state)}
        settings = load_settings(**REPLACED | own)
        _require_loopback(settings.host)
        yield settings.model_copy(update={"adapters": _fitting(settings.adapters)})


def announce(address: str) -> None:
    """Say where the browser finds the page."""
    _say(f"open {address}/ui   (SYNTHETIC: the sample market; end with Ctrl+C)")


def _require_loopback(host: str) -> None:
    if host not in LOCAL_HOSTS:
        raise SettingsError(
            f"--demo asks for no key, so it listens on this machine only: expected {PREFIX}HOST 127.0.0.1, "
            f"got {host}; unset it, or set keys and leave --demo out"
        )


def _fitting(adapters: Path | str) -> Path | str:
    """The store, if its latest adapter is one of the packaged base, else the store of the one that ships."""
    try:
        if not isinstance(adapters, HubName) and latest_version(adapters) is None:
            raise StoreError(f"no adapter in {adapters}/")
        adapter_at(adapters, base=BaseChoice(model=PACKAGED))
    except KronosError as error:
        _say(f"{' '.join(str(error).split())}: the sample adapter that ships serves instead")
        return SAMPLE_ADAPTERS
    return adapters


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
