"""DATABASE_URL is judged before anything is sent, and its password is in no message."""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
        ("postgresql://u:sekrit%zz@h/db", "percent-encode @"),
        ("postgresql://u:Hunter@2sekrit@127.0.0.1:1/db", "percent-encode @"),
        ("postgresql://u:sek/rit@127.0.0.1:1/db", "percent-encode @"),
        ("postgresql://u:12/sekrit@127.0.0.1/db", FORM),
        ("postgresql://u:12?sekrit=1@127.0.0.1/db", FORM),
        ("postgresql://u:12#sekrit@127.0.0.1/db", FORM),
        ("postgresql://u:sekrit@h:1/db?pgbouncer=true", "has the parameter pgbouncer, .* remove it"),
        ("postgresql://u:sekrit@h:1/db?sslmode=require&supa=base-pooler.x", "has the parameter supa,"),
        ("postgresql://u:sekrit@h:99999/db", "a port above 65535"),
        (
            "postgresql://u:sekrit@db.abcdefghijkl.supabase.co:5432/postgres",
            "use the session pooler .*PROJECT",
        ),
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


_TAIL = st.text("JXZ@/#?%[]:é &=", min_size=3, max_size=10).filter(lambda text: text.strip() != "")
_URL = st.tuples(
    st.sampled_from(["postgresql://", "postgres://", "", "postgresql:/", "jdbc:postgresql://", "https://"]),
    st.sampled_from(["", "S3user:", "S3us@er:", "S3us/er:", ":"]),
    st.sampled_from(["", "S3q?", "S3#", "S3/", "S3%", "S3@", "S312/", "S3[", "S3]:1/"]),
    _TAIL,
    st.sampled_from(["@127.0.0.1:1", "@[::1]:1", "@:1", "@", "@127.0.0.1:port"]),
    st.sampled_from(["/db", "", "/db@x", "/d b"]),
    st.sampled_from(["", "?sslmode=disable", "?pgbouncer=true", "?password=S3cret", "?user=S3x&S3y=1@"]),
)


@given(parts=_URL)
@settings(max_examples=300, deadline=None)
def test_no_part_of_the_user_info_is_in_any_message(parts: tuple[str, ...]) -> None:
    """S3 begins each part of user and password, and no host and no word of ours contains it."""
    with (
        pytest.raises(PostgresError) as refused,
        postgres_source(PostgresSettings(database_url=SecretStr("".join(parts)))),
    ):
        pytest.fail("nothing listens there")
    message = str(refused.value)
    assert "S3" not in message
    assert not re.search("[JXZé]", message)
    assert refused.value.__cause__ is None


def answer(connection: socket.socket, code: bytes, words: bytes) -> None:
    """What a PostgreSQL server says before it ends a connection."""
    while data := connection.recv(1024):
        if struct.unpack(">I", data[4:8])[0] in (80877103, 80877104):  # asks for TLS or GSS encryption
            connection.sendall(b"N")
            continue
        body = b"SFATAL\0VFATAL\0C" + code + b"\0M" + words + b"\0\0"
        connection.sendall(b"E" + struct.pack(">I", len(body) + 4) + body)
        return


@contextmanager
def refusing(code: bytes, words: bytes) -> Iterator[int]:
    """The port of a server that lets nobody in."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    with server.accept()[0] as connection:
                        answer(connection, code, words)

        Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    ("code", "words", "message"),
    [
        (b"XX000", b"Tenant or user not found", r"\(.*Tenant or user not found\): .* USER.PROJECT"),
        (b"28P01", b'password authentication failed for user "kronos_export"', "db: check its user and pass"),
        (b"3D000", b'database "db" does not exist', "check the name of the database"),
        (b"28000", b"your password Hunt3r2! has expired", "/db: check it"),
    ],
)
def test_a_server_that_refuses_is_explained_without_user_and_password(
    code: bytes, words: bytes, message: str
) -> None:
    with refusing(code, words) as port:
        url = SecretStr(f"postgresql://kronos_export:Hunt3r2%21@127.0.0.1:{port}/db?sslmode=disable")
        with (
            pytest.raises(PostgresError, match=message) as refused,
            postgres_source(PostgresSettings(database_url=url)),
        ):
            pytest.fail("it refuses everybody")
    assert 'kronos_export"' not in str(refused.value)
    assert "Hunt3r2" not in str(refused.value)


def test_without_a_setting_its_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(PostgresError, match="set DATABASE_URL"), postgres_source():
        pass
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:sekrit@h/db")
    assert "sekrit" not in repr(PostgresSettings.model_validate({}))
