"""An adapter that is pushed to the hub and comes back from it, the same to the byte."""

from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub
import pytest
import yaml
from hub_server import TOKEN, Hub, running_hub, use_hub

from kronos_service.finetune.__main__ import main
from kronos_service.finetune.config import PushConfig
from kronos_service.finetune.push import PushError, push
from kronos_service.inference.models.served_model import adapter_at
from kronos_service.model.adapter.files import read_files
from kronos_service.model.adapter.hub import hub_store
from kronos_service.model.adapter.read import NoAdapterError, find_adapter
from kronos_service.model.factory import BaseChoice
from kronos_service.model.packaged import SAMPLE_ADAPTERS
from kronos_shared.adapter_location import HubName, adapter_location
from kronos_shared.adapter_manifest import FILES, MANIFEST
from kronos_shared.adapter_store import latest, publish
from kronos_shared.errors import KronosError


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        use_hub(hub, str(tmp_path / "hub-cache"), monkeypatch)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        yield hub


def test_a_pushed_adapter_comes_back_the_same_under_its_commit(
    hub: Hub, adapter_of: Callable[[int], Path], base_path: Path, tmp_path: Path
) -> None:
    publish(adapter_of(1), tmp_path / "adapters", keep=3)
    name = push(PushConfig(adapter=tmp_path / "adapters", repo="someone/fomc"))
    (commit,) = hub.commits["someone/fomc"]
    assert name == f"hub:someone/fomc@{commit}"
    assert hub.private == {"someone/fomc": True}
    directory = find_adapter(name)
    for one in (*FILES, MANIFEST):
        assert (directory / one).read_bytes() == (adapter_of(1) / one).read_bytes()
    assert directory.name == f"someone--fomc@{commit}"  # what evaluations and merges record
    served = adapter_at(name, base=BaseChoice(model=str(base_path)))
    assert served.version == f"someone/fomc@{commit[:12]}"
    assert served.digest == read_files(adapter_of(1)).digest
    place = adapter_location(name)
    assert isinstance(place, HubName)
    store = hub_store(place, tmp_path / "state")
    pointer = latest(store)
    assert pointer is not None
    assert pointer.manifest_sha256 == served.digest
    hub.requests.clear()
    assert find_adapter(name) == directory
    assert hub.requests == []  # a commit never changes


def test_pushing_again_is_another_commit_and_the_first_one_stays(
    hub: Hub, adapter_of: Callable[[int], Path]
) -> None:
    first, second = (push(PushConfig(adapter=adapter_of(seed), repo="someone/fomc")) for seed in (1, 2))
    assert first != second
    assert read_files(find_adapter(first)).digest == read_files(adapter_of(1)).digest
    assert read_files(find_adapter(second)).digest == read_files(adapter_of(2)).digest
    assert len(hub.commits["someone/fomc"]) == 2


def test_the_card_says_what_the_hub_searches_and_that_a_sample_s_adapter_is_synthetic(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    name = push(PushConfig(adapter=Path("sample"), repo="someone/sample", public=True))
    assert hub.private == {"someone/sample": False}
    files = hub.commits["someone/sample"][name.split("@")[1]]
    card = files["README.md"].decode()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["library_name"] == "peft"
    assert {"lora", "kronos-events", "synthetic"} <= set(front["tags"])
    assert "base_model" not in front  # the packaged base is no repository of the hub
    assert "SYNTHETIC: this adapter has learned from a sample market" in card
    assert "SYNTHETIC" in capsys.readouterr().out
    assert files["adapter_card.md"] == next(SAMPLE_ADAPTERS.glob("versions/*/README.md")).read_bytes()


def test_the_command_takes_two_words_and_says_the_name(
    hub: Hub, adapter_of: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["push", str(adapter_of(1)), "someone/fomc"]) == 0
    (commit,) = hub.commits["someone/fomc"]
    said = "".join(capsys.readouterr())
    assert f"hub:someone/fomc@{commit}" in said
    assert TOKEN not in said
    assert main(["push", str(adapter_of(1)), "fomc"]) == 2
    assert "--repo" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "the hub knows no valid token of yours; log in with `hf auth login`"),
        (403, "your token may not write there"),
        (404, "the hub answers 404; check the name"),
    ],
)
def test_what_the_hub_refuses_is_one_line_without_the_token(
    hub: Hub, adapter_of: Callable[[int], Path], status: int, says: str
) -> None:
    hub.status = status
    with pytest.raises(PushError, match=says) as raised:
        push(PushConfig(adapter=adapter_of(1), repo="someone/fomc"))
    assert TOKEN not in str(raised.value)


@pytest.mark.usefixtures("hub")
def test_offline_a_line_says_what_to_do(
    adapter_of: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name = push(PushConfig(adapter=adapter_of(1), repo="someone/fomc"))
    directory = find_adapter(name)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert find_adapter(name) == directory
    with pytest.raises(PushError, match="HF_HUB_OFFLINE is set; unset it"):
        push(PushConfig(adapter=adapter_of(1), repo="someone/fomc"))
    with pytest.raises(KronosError, match=r"is not in the local cache and cannot be fetched"):
        find_adapter(f"hub:someone/fomc@{'a' * 40}")


def test_what_is_not_on_the_hub_or_has_no_commit_is_refused(hub: Hub) -> None:
    with pytest.raises(KronosError, match=r"the hub has no manifest\.json for someone/nothing"):
        find_adapter(f"hub:someone/nothing@{'a' * 40}")
    with pytest.raises(NoAdapterError, match="named with its commit, because branches move"):
        find_adapter("hub:someone/fomc@main")
    assert hub.commits == {}
