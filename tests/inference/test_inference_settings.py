"""Settings: from the environment, refused in one line, and no secret shown."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kronos_service.inference.__main__ import main
from kronos_service.inference.service import Service
from kronos_service.inference.settings import Settings, SettingsError, load_settings

GOOD = {
    "KRONOS_API_KEYS": "first-key-of-a-user, second-key-of-a-user",
    "KRONOS_ADMIN_KEYS": "key-of-the-admin!",
}


SECRETS = ("first-key", "second-key", "key-of", "short-secret")


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SUPABASE_URL", "SUPABASE_KEY", "DATABASE_URL", *GOOD):
        monkeypatch.delenv(name, raising=False)


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {
        **GOOD,
        "KRONOS_SNAPSHOT": str(tmp_path),
        "KRONOS_PORT": "9000",
        "KRONOS_BASE_MODEL": "nano",
        "KRONOS_ALLOW_BASE_ONLY": "1",
    }.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert [key.get_secret_value() for key in settings.api_keys] == [
        "first-key-of-a-user",
        "second-key-of-a-user",
    ]
    assert (settings.snapshot, settings.port, settings.allow_base_only) == (tmp_path, 9000, True)
    assert "key-of" not in repr(settings)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"KRONOS_API_KEYS": ""}, "KRONOS_API_KEYS"),
        ({"KRONOS_API_KEYS": "short-secret"}, "at least 16 ASCII characters"),
        ({"KRONOS_ADMIN_KEYS": "first-key-of-a-user"}, "not both"),
        ({"KRONOS_PORT": "http"}, "KRONOS_PORT"),
        ({"KRONOS_PORT": "70000"}, "KRONOS_PORT"),
        ({"KRONOS_QUEUE_SIZE": "0"}, "KRONOS_QUEUE_SIZE"),
        ({"KRONOS_POLL_SECONDS": "-1"}, "KRONOS_POLL_SECONDS"),
        ({"KRONOS_SOURCE": "mysql"}, "KRONOS_SOURCE"),
        ({"KRONOS_SNAPSHOT": "no/such/place"}, "no/such/place is not a directory"),
        ({"KRONOS_SNAPSHOT": ".", "KRONOS_SOURCE": "postgres"}, "drop one of them"),
        ({"KRONOS_DEFAULT_DEADLINE_MS": "90000"}, "must not exceed max_deadline_ms"),
        ({"KRONOS_ALLOW_BASE_ONLY": "1"}, "needs base_model"),
        ({"KRONOS_SOURCE": "supabase"}, "set SUPABASE_URL, SUPABASE_KEY"),
        ({"KRONOS_SOURCE": "postgres"}, "set DATABASE_URL"),
        ({"KRONOS_DEVIC": "cpu"}, "environment variable KRONOS_DEVIC (did you mean KRONOS_DEVICE?): correct"),
        ({"KRONOS_PRECISION": "fp16"}, "KRONOS_PRECISION: Input should be 'fp32' or 'bf16'"),
        ({"KRONOS_PRECISION": "bf16"}, "precision bf16 needs device cuda, got cpu"),
        ({"KRONOS_XYZZY": "key-of"}, "unknown environment variable KRONOS_XYZZY: correct or unset it"),
        ({"KRONOS_CORS_ORIGINS": "desk.example"}, "expected origins such as https://"),
        ({"KRONOS_ROOT_PATH": "kronos"}, "KRONOS_ROOT_PATH"),
        ({"KRONOS_ADAPTERS": "a", "KRONOS_STATE_DIR": "a/state"}, "lies inside the store"),
    ],
)
def test_what_cannot_be_is_one_line_without_a_secret_and_exit_code_2(
    changes: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {**GOOD, **changes}.items():
        monkeypatch.setenv(name, value)
    assert main(["serve"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert message in err
    assert not any(secret in err for secret in SECRETS)


def test_without_any_key_there_is_no_service() -> None:
    with pytest.raises(SettingsError, match="KRONOS_API_KEYS: Field required"):
        load_settings()


def test_settings_of_other_commands_are_theirs(monkeypatch: pytest.MonkeyPatch) -> None:
    from kronos_service.finetune.commands import COMMANDS as FINETUNE
    from kronos_service.inference.commands import COMMANDS

    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    for command in {*FINETUNE, *COMMANDS} - {"serve"}:
        monkeypatch.setenv(f"KRONOS_{command.upper().replace('-', '_')}_SEED", "1")
    assert load_settings().port == 8000


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"base_revision": "main"}, "a revision belongs to a hub id, but tiny is a directory"),
        ({"tokenizer": "desk/tokenizer"}, "no pinned revision of desk/tokenizer is known"),
        (
            {"tokenizer": "desk/tokenizer", "tokenizer_revision": "main"},
            "revision of desk/tokenizer must be a commit (40 hex digits), because branches move; got 'main'",
        ),
        ({"device": "cuda:99"}, "CUDA"),  # no machine has so many
    ],
)
def test_the_base_is_loaded_as_the_operator_says(
    settings_of: Callable[..., Settings], changes: dict[str, str], reason: str
) -> None:
    service = Service(settings_of(**changes), clock=lambda: datetime(2023, 1, 3, tzinfo=UTC))
    assert reason in str(service.loader.look().reason)


def test_the_loader_looks_as_often_as_the_operator_says(settings_of: Callable[..., Settings]) -> None:
    service = Service(settings_of(poll_seconds=7), clock=lambda: datetime(2023, 1, 3, tzinfo=UTC))
    assert service.loader._poll_seconds == 7
