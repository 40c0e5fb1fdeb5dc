"""DATABASE_URL, taken apart before anything is sent: nothing of its user and password is in any message.

An address that is not exactly of the expected form is refused whole, because which of its parts is the
password cannot be known then: libpq and `urlsplit` cut an address with an unencoded `@`, `/` or `#` in two
ways, and would print different halves of it.
"""

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlencode

from kronos_shared.errors import KronosError

SCHEMES: Final = ("postgresql", "postgres")
NETWORK: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}
"""libpq's settings unless the URL has its own: they notice a dead server in a minute instead of hours."""
PARAMETERS: Final = frozenset(
    [
        "application_name",
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "dbname",
        "fallback_application_name",
        "gssdelegation",
        "gssencmode",
        "gsslib",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_hosts",
        "max_protocol_version",
        "min_protocol_version",
        "options",
        "passfile",
        "password",
        "port",
        "replication",
        "require_auth",
        "requirepeer",
        "scram_client_key",
        "scram_server_key",
        "service",
        "servicefile",
        "ssl_max_protocol_version",
        "ssl_min_protocol_version",
        "sslcert",
        "sslcertmode",
        "sslcompression",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslkeylogfile",
        "sslmode",
        "sslnegotiation",
        "sslpassword",
        "sslrootcert",
        "sslsni",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    ]
)
"""What libpq knows; other clients' (pgbouncer, pool_timeout) it rejects."""
OTHER_SCHEMES: Final = frozenset(
    {"http", "https", "mysql", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+asyncpg"}
)
"""Others that people write, and that may be named: anything else in their place may be a password."""
FORM: Final = "expected postgresql://user:password@host:5432/database"
ENCODE: Final = "percent-encode @ : / ? # % and blanks in user and password, as in %40 for @"

_SAFE: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_ADDRESS: Final = re.compile(
    rf"(?P<scheme>postgres(?:ql)?)://(?:(?P<user>{_SAFE})(?::(?P<password>{_SAFE}))?@)?"
    rf"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?::(?P<port>\d{{1,5}}))?"
    rf"(?:/(?P<database>{_SAFE}))?(?:\?(?P<query>[A-Za-z0-9_.~=&%+:,/*-]*))?"
)


class PostgresError(KronosError):
    """The database cannot be read with these settings."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Address:
    """A checked DATABASE_URL."""

    url: str
    """For libpq, with the password."""
    name: str
    """Host and database, without secrets."""
    host: str
    secrets: tuple[str, ...]
    """User and password, as written and as decoded: what no message may contain."""

    def says(self, words: str) -> str:
        """A server's words, or nothing where they quote user or password."""
        return "" if any(_is_in(secret, words) for secret in self.secrets) else words


def read_address(url: str) -> Address:
    """Take the address apart.

    Raises:
        PostgresError: it is not of the form, has a parameter that libpq does not know, or names the
            transaction pooler; no part of user and password is in the message.
    """
    found = _ADDRESS.fullmatch(url)
    if found is None:
        raise PostgresError(f"DATABASE_URL is not an address of PostgreSQL{_scheme(url)}: {FORM}; {ENCODE}")
    host = found["host"].strip("[]")
    port = int(found["port"] or 5432)
    if not 1 <= port <= 65535:
        raise PostgresError(f"DATABASE_URL has a port above 65535: {FORM}")
    given = dict(parse_qsl(found["query"] or "", keep_blank_values=True))
    unknown = sorted(set(given) - PARAMETERS)
    if unknown:
        raise PostgresError(
            f"DATABASE_URL has the parameter {', '.join(unknown)}, which is another client's and unknown to "
            "PostgreSQL's: remove it from the address, with its value"
        )
    if port == 6543 and host.endswith(".supabase.com"):
        raise PostgresError(
            "DATABASE_URL names the transaction pooler (port 6543), which cannot read in bulk: "
            "use the session pooler or the direct connection, port 5432"
        )
    query = urlencode(NETWORK | given, quote_via=quote)
    written = [found["user"], found["password"], given.get("user"), given.get("password")]
    secrets = {part for one in written if one for part in (one, unquote(one))}
    database = f"/{unquote(found['database'])}" if found["database"] else ""
    return Address(
        url=url.partition("?")[0] + f"?{query}",
        name=f"postgres:{host}{database}",
        host=host,
        secrets=tuple(sorted(secrets)),
    )


def _is_in(secret: str, words: str) -> bool:
    """Whether words contain a secret; a short one only as a word of its own."""
    if len(secret) >= 4:
        return secret in words
    return bool(re.search(rf"(?<!\w){re.escape(secret)}(?!\w)", words))


def _scheme(url: str) -> str:
    """The scheme in brackets, where there is one and nothing else could stand in its place."""
    scheme = url.partition("://")[0]
    if "://" not in url:
        return " (no scheme)"
    if scheme in SCHEMES:
        return ""
    return f" (scheme {scheme!r})" if scheme in OTHER_SCHEMES else " (another scheme)"
