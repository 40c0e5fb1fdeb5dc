"""A real PostgreSQL and a real PostgREST, started for the tests in a temporary directory on 127.0.0.1.

The roles are those of a hosted project; `shared/schema.sql` makes the rest. PostgREST comes from the
folder that POSTGREST names (`make test-integration` fills it).
"""

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Final

import adbc_driver_postgresql.dbapi as adbc
import jwt
import pandas as pd
import pyarrow as pa

SCHEMA: Final = (files("kronos_shared") / "schema.sql").read_text(encoding="utf-8")
CAP: Final = 1000
"""PostgREST's db-max-rows, as hosted."""

PASSWORDS: Final = {
    name: f"pw-{name}-{secrets.token_hex(8)}" for name in ("owner", "authenticator", "trainer", "writer")
}
JWT_SECRET: Final = secrets.token_hex(24)
KEYS: Final = {
    role: jwt.encode({"role": role, "exp": int(time.time()) + 86_400}, JWT_SECRET, algorithm="HS256")
    for role in ("anon", "authenticated", "service_role", "kronos_training", "kronos_writer")
}
"""A JWT for each role, which is also the API key that the gateway knows the role by."""

HOSTED_ROLES: Final = f"""
create role anon nologin;
create role authenticated nologin;
create role service_role nologin bypassrls;
create role authenticator noinherit login password '{PASSWORDS["authenticator"]}';
grant anon, authenticated, service_role to authenticator;
alter role anon set statement_timeout = '3s';
alter role authenticated set statement_timeout = '8s';
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
"""
LOGINS: Final = f"""
create role trainer login password '{PASSWORDS["trainer"]}' in role kronos_training;
create role writer login password '{PASSWORDS["writer"]}' in role kronos_writer;
"""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """Addresses of the servers that run."""

    postgres_port: int
    rest_port: int
    directory: Path

    def url(self, user: str = "owner", password: str | None = None, database: str = "market") -> str:
        secret = PASSWORDS[user] if password is None else password
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.postgres_port}/{database}"

    def sql(self, statements: str, user: str = "owner") -> str:
        """Run statements through psql; raises `CalledProcessError` with its words on an error."""
        command = ["psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", self.url(user)]
        done = subprocess.run(command, input=statements, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def reload(self) -> None:
        """Let PostgREST see tables and columns that changed, and wait until it has."""
        self.sql("notify pgrst, 'reload schema'")
        time.sleep(0.3)

    def log(self) -> str:
        return "".join(path.read_text() for path in self.directory.glob("*.log"))


@contextmanager
def running_backend() -> Iterator[Backend]:
    """Start both servers with empty tables, and stop them and remove their files in the end."""
    directory = Path(tempfile.mkdtemp(prefix="kronos-integration-"))
    as_root = os.geteuid() == 0  # PostgreSQL refuses to run as root
    if as_root:
        shutil.chown(directory, "postgres", "postgres")
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if as_root else {}
    ports = free_ports(2)
    try:
        with _postgres(directory, ports[0], user):
            backend = Backend(postgres_port=ports[0], rest_port=ports[1], directory=directory)
            subprocess.run(
                ["psql", "-X", "-q", backend.url(database="postgres")],
                input="create database market",
                text=True,
                check=True,
            )
            backend.sql(HOSTED_ROLES + SCHEMA + LOGINS)
            with _postgrest(backend):
                yield backend
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _postgres(directory: Path, port: int, user: dict[str, object]) -> Iterator[None]:
    password = directory / "password"
    password.write_text(PASSWORDS["owner"])
    data, log = directory / "data", directory / "postgres.log"
    # English rules of order, as hosted projects may have: "a" < "B", unlike Python's.
    locale = ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
    make = ["initdb", "-D", str(data), "-U", "owner", f"--pwfile={password}", "-A", "scram-sha-256", "-N"]
    subprocess.run(  # type: ignore[call-overload]
        [_program(make[0]), *make[1:], *locale], check=True, capture_output=True, cwd=directory, **user
    )
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": directory,
        "fsync": "off",
        "max_connections": 60,
        "log_statement": "all",
    }
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with log.open("wb") as file:
        server = subprocess.Popen(  # type: ignore[call-overload]
            [_program("postgres"), "-D", str(data), *flags], stdout=file, stderr=file, cwd=directory, **user
        )
    try:
        _wait_for_port(port, server, log)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # "fast": does not wait for clients to leave
        server.wait(30)


@contextmanager
def _postgrest(backend: Backend) -> Iterator[None]:
    config, log = backend.directory / "postgrest.conf", backend.directory / "postgrest.log"
    settings = {
        "db-uri": backend.url("authenticator"),
        "db-schemas": "public",
        "db-anon-role": "anon",
        "db-max-rows": CAP,
        "db-pool": 12,
        "jwt-secret": JWT_SECRET,
        "server-host": "127.0.0.1",
        "server-port": backend.rest_port,
    }
    config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    binary = Path(os.environ["POSTGREST"]) / "postgrest"
    with log.open("wb") as file:
        server = subprocess.Popen([binary, str(config)], stdout=file, stderr=file)
    try:
        _wait_for_port(backend.rest_port, server, log)
        _wait_for_schema(backend)
        yield
    finally:
        server.terminate()
        server.wait(30)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def insert(backend: Backend, table: str, rows: pd.DataFrame) -> None:
    """Append rows in bulk as the owner, past every policy."""
    with adbc.connect(backend.url()) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                "set session_replication_role = replica"
            )  # a foreign key would be looked up per row
            cursor.adbc_ingest(table, pa.Table.from_pandas(rows, preserve_index=False), mode="append")
        connection.commit()


def _wait_for_port(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    until = time.monotonic() + 30
    while time.monotonic() < until:
        if server.poll() is not None:
            raise RuntimeError(f"{server.args!r} ended: {log.read_text()}")
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"nothing listens on {port}: {log.read_text()}")


def _wait_for_schema(backend: Backend) -> None:
    """PostgREST answers 503 until it has read the schema."""
    until = time.monotonic() + 30
    request = urllib.request.Request(
        f"http://127.0.0.1:{backend.rest_port}/symbols",
        headers={"Authorization": f"Bearer {KEYS['service_role']}"},
    )
    while time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(request, timeout=5):
            return
        time.sleep(0.05)
    raise RuntimeError("PostgREST never became ready")


def _program(name: str) -> str:
    """On Debian the server's programs lie outside PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(found[-1]) if found else (shutil.which(name) or name)
