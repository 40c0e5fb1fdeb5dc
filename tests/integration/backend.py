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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import adbc_driver_postgresql.dbapi as adbc
import jwt
import pandas as pd
import pyarrow as pa

SCHEMA: Final = (files("kronos_shared") / "schema.sql").read_text(encoding="utf-8")
PASSWORDS: Final = {
    name: f"pw-{name}-{secrets.token_hex(8)}"
    for name in ("owner", "authenticator", "trainer", "writer", "forecaster")
}
JWT_SECRET: Final = secrets.token_hex(24)
KEYS: Final = {
    role: jwt.encode({"role": role, "exp": int(time.time()) + 86_400}, JWT_SECRET, algorithm="HS256")
    for role in (
        "anon",
        "authenticated",
        "service_role",
        "kronos_training",
        "kronos_writer",
        "kronos_forecaster",
    )
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
"""
HOSTED_GRANTS: Final = """
grant usage on schema public to anon, authenticated, service_role;
alter default privileges in schema public grant all on tables to anon, authenticated, service_role;
"""
LOGINS: Final = f"""
create role trainer login password '{PASSWORDS["trainer"]}' in role kronos_training;
create role writer login password '{PASSWORDS["writer"]}' in role kronos_writer;
create role forecaster login password '{PASSWORDS["forecaster"]}' in role kronos_forecaster;
"""


@dataclass(frozen=True, kw_only=True)
class Backend:
    """One database with our tables, and the PostgREST before it."""

    directory: Path
    postgres_port: int
    rest_port: int
    database: str

    def url(self, user: str = "owner", password: str | None = None, database: str | None = None) -> str:
        secret = PASSWORDS[user] if password is None else password
        return f"postgresql://{user}:{secret}@127.0.0.1:{self.postgres_port}/{database or self.database}"

    def sql(self, statements: str, user: str = "owner", database: str | None = None) -> str:
        """Run statements through psql; raises `CalledProcessError` with its words on an error."""
        url = self.url(user, database=database)
        command = ["psql", "-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", url]
        done = subprocess.run(command, input=statements, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def log(self) -> str:
        """What both servers wrote."""
        return "".join(path.read_text(errors="replace") for path in self.directory.glob("*.log"))


@contextmanager
def running_backends(caps: dict[str, int]) -> Iterator[list[Backend]]:
    """A server with these databases, empty, each behind a PostgREST with its cap of rows a page.

    All of it is stopped, and its files are removed, in the end.
    """
    directory = Path(tempfile.mkdtemp(prefix="kronos-integration-"))
    as_root = os.geteuid() == 0  # PostgreSQL refuses to run as root
    if as_root:
        shutil.chown(directory, "postgres", "postgres")
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if as_root else {}
    ports = free_ports(1 + len(caps))
    try:
        with _postgres(directory, ports[0], user), ExitStack() as stack:
            backends = []
            for number, (name, cap) in enumerate(caps.items()):
                backend = Backend(
                    directory=directory, postgres_port=ports[0], rest_port=ports[1 + number], database=name
                )
                backend.sql(f"create database {name}", database="postgres")
                first = number == 0
                backend.sql(HOSTED_ROLES * first + HOSTED_GRANTS + SCHEMA + LOGINS * first)
                stack.enter_context(_postgrest(backend, cap))
                backends.append(backend)
            yield backends
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def _postgres(directory: Path, port: int, user: dict[str, Any]) -> Iterator[None]:
    password = directory / "password"
    password.write_text(PASSWORDS["owner"])
    data, log = directory / "data", directory / "postgres.log"
    # English rules of order, as hosted projects may have: "a" < "B", unlike Python's.
    locale = ["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US"]
    make = ["-D", str(data), "-U", "owner", f"--pwfile={password}", "-A", "scram-sha-256", "-N", *locale]
    subprocess.run([_program("initdb"), *make], check=True, capture_output=True, cwd=directory, **user)
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": directory,
        "fsync": "off",
        "max_connections": 60,
    }
    flags = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    with log.open("wb") as file:
        command = [_program("postgres"), "-D", str(data), *flags]
        server = subprocess.Popen(command, stdout=file, stderr=file, cwd=directory, **user)
    try:
        _wait_for_port(port, server, log)
        yield
    finally:
        server.send_signal(signal.SIGINT)  # "fast": does not wait for clients to leave
        server.wait(30)


@contextmanager
def _postgrest(backend: Backend, cap: int) -> Iterator[None]:
    config = backend.directory / f"{backend.database}-postgrest.conf"
    settings = {
        "db-uri": backend.url("authenticator"),
        "db-schemas": "public",
        "db-anon-role": "anon",
        "db-max-rows": cap,
        "db-pool": 12,
        "jwt-secret": JWT_SECRET,
        "server-host": "127.0.0.1",
        "server-port": backend.rest_port,
    }
    config.write_text("".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    binary, log = Path(os.environ["POSTGREST"]) / "postgrest", config.with_suffix(".log")
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
