"""The demo: this machine only, no keys, the sample market, and nothing kept."""

import os
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from kronos_service.inference.__main__ import main
from kronos_service.inference.http.app import create_app
from kronos_service.inference.http.demo import demo_settings
from kronos_service.inference.settings import Settings, SettingsError
from kronos_service.model.packaged import SAMPLE_ADAPTERS
from kronos_shared.adapter_store import latest_version, publish

ROUTES = (
    *(
        ("GET", path)
        for path in ("/v1/model", "/v1/symbols", "/v1/bars?symbol=SPY", "/v1/adapters", "/v1/record")
    ),
    ("POST", "/v1/adapters/reload"),
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No settings, an empty working directory, and as many threads after a demo as before."""
    for name in [name for name in os.environ if name.startswith("KRONOS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def taken_port(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A port that somebody uses: what should have been refused before fails there, and serves nothing."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        monkeypatch.setenv("KRONOS_PORT", str(one.getsockname()[1]))
        yield


@pytest.fixture(scope="module")
def open_client(settings_of: Callable[..., Settings]) -> Iterator[TestClient]:
    app = create_app(settings_of(), needs_keys=False)
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        while client.get("/readyz").status_code != 200:
            pass
        yield client


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer a-key-of-another-service"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Host": "localhost:8000", "Origin": "http://localhost:8000"},
        {"Host": "[::1]:8000"},
    ],
)
def test_a_program_or_page_of_this_machine_needs_no_key(
    open_client: TestClient, method: str, path: str, headers: dict[str, str]
) -> None:
    assert open_client.request(method, path, headers=headers).status_code == 200


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "127.0.0.1:8000@evil.example"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "http://127.0.0.1:9000"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Origin": "null"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
    ],
)
def test_another_sites_page_in_the_same_browser_is_refused(
    open_client: TestClient, method: str, path: str, headers: dict[str, str]
) -> None:
    """A page elsewhere can send simple requests to this machine, and call itself this machine by its DNS."""
    answer = open_client.request(method, path, headers=headers)
    assert answer.status_code == 403
    assert answer.json()["error"]["code"] == "forbidden"


def test_a_service_with_keys_still_asks_for_them(client: TestClient) -> None:
    fresh = TestClient(client.app, base_url="http://127.0.0.1:8000")
    assert {fresh.request(method, path).status_code for method, path in ROUTES} == {401}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "demo.example", "127.0.0.1.example"])
def test_it_listens_on_this_machine_only(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_HOST", host)
    expected = f"listens on this machine only: expected KRONOS_HOST 127.0.0.1, got {host};"
    with pytest.raises(SettingsError, match=re.escape(expected)), demo_settings():
        pass


@pytest.mark.usefixtures("taken_port")
def test_another_host_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KRONOS_HOST", "0.0.0.0")
    assert main(["serve", "--demo"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: --demo asks for no key, so it listens on this machine only: ")
    assert said.count("\n") == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_every_name_of_this_machine_will_do(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KRONOS_HOST", host)
    with demo_settings() as settings:
        assert settings.host == host


def test_it_takes_address_and_limits_of_the_environment_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Not even a key: nobody knows the one that it makes."""
    for name, value in {
        **{"KRONOS_API_KEYS": "a-key-of-the-environment", "KRONOS_SOURCE": "postgres", "KRONOS_UI": "off"},
        **{"KRONOS_CORS_ORIGINS": "*", "KRONOS_STATE_DIR": str(tmp_path / "state"), "KRONOS_PORT": "9000"},
        **{"KRONOS_MAX_HORIZON": "20"},
    }.items():
        monkeypatch.setenv(name, value)
    with demo_settings() as settings:
        assert (settings.source, settings.snapshot, settings.cors_origins, settings.ui) == (
            "snapshot",
            None,
            (),
            True,
        )
        assert (settings.port, settings.max_horizon) == (9000, 20)
        assert [key.get_secret_value() for key in settings.api_keys] != ["a-key-of-the-environment"]
        assert len(settings.api_keys[0].get_secret_value()) == 48
        state = settings.state_dir
        assert state.is_dir()
    assert not state.exists()
    assert not (tmp_path / "state").exists()
    unused = "KRONOS_API_KEYS, KRONOS_SOURCE, KRONOS_STATE_DIR, KRONOS_CORS_ORIGINS, KRONOS_UI"
    said = capsys.readouterr().out
    assert said.startswith(f"not used by the demo: {unused}\n")
    assert "a-key-of" not in said


@pytest.mark.usefixtures("taken_port")
def test_a_misspelt_variable_stops_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KRONOS_PROT", "9000")
    assert main(["serve", "--demo"]) == 2
    assert "KRONOS_PROT (did you mean KRONOS_PORT?)" in capsys.readouterr().err


def test_the_newest_adapter_here_serves_if_it_fits_the_sample(
    tmp_path: Path, adapter_of: Callable[[int], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with demo_settings() as settings:
        assert settings.adapters == SAMPLE_ADAPTERS
    assert "no adapter in adapters/: the sample adapter that ships serves instead" in capsys.readouterr().out
    publish(adapter_of(1), tmp_path / "adapters", keep=5)  # of another base
    with demo_settings() as settings:
        assert settings.adapters == SAMPLE_ADAPTERS
    assert "the sample adapter that ships serves instead" in capsys.readouterr().out
    packaged = latest_version(SAMPLE_ADAPTERS)
    assert packaged is not None
    publish(packaged, tmp_path / "adapters", keep=5)
    with demo_settings() as settings:
        assert settings.adapters == Path("adapters")
    assert capsys.readouterr().out == ""


def test_a_demo_needs_no_setting_and_serve_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"]) == 2
    assert "KRONOS_API_KEYS: Field required" in capsys.readouterr().err
    with demo_settings() as settings:
        app: Any = create_app(settings, needs_keys=False)
        assert app.state.settings.adapters == SAMPLE_ADAPTERS
