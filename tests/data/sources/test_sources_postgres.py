"""DATABASE_URL is judged before anything is sent, and its password is in no message."""

import pytest
from pydantic import SecretStr

from kronos_service.data.sources.postgres import PostgresError, PostgresSettings, postgres_source

FORM = r"expected postgresql://user:password@host:5432/database"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "no scheme"),
        ("sekrit", "no scheme"),
        ("host=h password=sekrit", "no scheme"),
        ("postgresql://u:sek rit@h/db", FORM),
        ("postgresql+psycopg2://u:sekrit@h/db", "scheme 'postgresql.psycopg2'"),
        ("https://u:sekrit@abc.supabase.co", "scheme 'https'"),
        ("postgresql://u:sekrit@h:port/db", FORM),
        ("postgresql://u:sekrit[@h/db", FORM),
        ("postgresql:///db", FORM),
        ("postgresql://u:sekrit%zz@h/db", "percent-encode it as %25"),
        ("postgresql://u:sekrit@aws-0-eu-central-1.pooler.supabase.com:6543/postgres", "port 5432"),
        (
            "postgresql://u:sekrit@127.0.0.1:1/db",
            "127.0.0.1/db .Connection refused.: check its host and port",
        ),
    ],
)
def test_an_address_that_cannot_be_is_explained_in_a_line_without_the_password(
    url: str, message: str
) -> None:
    with (
        pytest.raises(PostgresError, match=message) as refused,
        postgres_source(PostgresSettings(database_url=SecretStr(url))),
    ):
        pass
    assert "sekrit" not in str(refused.value)
    assert "rit@" not in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_without_a_setting_its_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(PostgresError, match="set DATABASE_URL"), postgres_source():
        pass
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:sekrit@h/db")
    assert "sekrit" not in repr(PostgresSettings.model_validate({}))
