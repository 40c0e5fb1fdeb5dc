"""A small PostgREST for `httpx.MockTransport`: the real client talks to it as to the real server.

It keeps the silent row cap, keys, filters (gte, gt, lt, eq, is.null, or, and), orders, limits, exact counts
and error bodies. Without an order it hands rows over in a different order each time, as a database may.
"""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import httpx
import pandas as pd

Row = dict[str, Any]
Test = Callable[[Row], bool]
TIMES = ("ts", "release_at", "first_seen_at")


@dataclass
class FakePostgrest:
    """Tables behind a gateway; `answers` are given, or raised, before the tables are asked."""

    tables: dict[str, list[Row]]
    key: str = "secret-key"
    cap: int = 1000
    counts: bool = True
    answers: list[httpx.Response | Exception] = field(default_factory=list)
    before: Callable[["FakePostgrest"], None] = lambda fake: None
    """Called before each request, such as for another client that writes."""
    requests: list[httpx.Request] = field(default_factory=list)

    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handle)

    def handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        self.before(self)
        if self.answers:
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if request.headers.get("apikey") != self.key:
            return httpx.Response(
                401, json={"message": "Invalid API key", "hint": "Double check your API key."}
            )
        if not request.url.path.startswith("/rest/v1/"):
            return httpx.Response(404, html="<h1>Not found</h1>")
        table = request.url.path.removeprefix("/rest/v1/")
        if table not in self.tables:
            message = f"Could not find the table 'public.{table}' in the schema cache"
            return httpx.Response(404, json={"code": "PGRST205", "message": message})
        return self._select(self.tables[table], request)

    def _select(self, rows: list[Row], request: httpx.Request) -> httpx.Response:
        parameters = request.url.params.multi_items()
        columns = {"select", "order", "limit", "or"}
        used = [name for name, _ in parameters if name not in columns]
        used += [clause.split(".")[0] for clause in dict(parameters).get("order", "").split(",") if clause]
        if missing := [name for name in used if rows and name not in rows[0]]:
            message = f"column {missing[0]} does not exist"
            return httpx.Response(400, json={"code": "42703", "message": message})
        for name, value in parameters:
            if name == "or":
                rows = list(filter(any_of(value), rows))
            elif name not in columns:
                rows = list(filter(one(f"{name}.{value}"), rows))
        options = dict(parameters)
        rows = ordered(rows, options.get("order", ""))
        page = rows[: min(int(options.get("limit", self.cap)), self.cap)]
        is_counted = self.counts and "count=exact" in request.headers.get("prefer", "")
        span = f"0-{len(page) - 1}" if page else "*"
        headers = {"content-range": f"{span}/{len(rows) if is_counted else '*'}"}
        return httpx.Response(200, content=json.dumps(page), headers=headers)


def ordered(rows: list[Row], order: str) -> list[Row]:
    """Rows by PostgREST's `order` value, such as `symbol.asc,first_seen_at.asc.nullsfirst`."""
    rows = random.sample(rows, len(rows))
    for clause in reversed(order.split(",") if order else []):
        column, *modes = clause.split(".")
        is_down, is_null_first = "desc" in modes, "nullsfirst" in modes

        def place(row: Row, column: str = column, is_null_first: bool = is_null_first) -> tuple[bool, Any]:
            value = row[column]
            return (value is None) != is_null_first, "" if value is None else comparable(column, value)

        rows = sorted(rows, key=place, reverse=is_down)
    return rows


def one(condition: str) -> Test:
    """A test of the form column.operator.value, or and(...) and or(...) of several."""
    if nested := re.fullmatch(r"(and|or)(\(.*\))", condition, re.DOTALL):
        return all_of(nested[2]) if nested[1] == "and" else any_of(nested[2])
    column, operator, value = condition.split(".", 2)
    if (operator, value) in (("is", "null"), ("not", "is.null")):
        return lambda row: (row[column] is None) == (operator == "is")
    value = re.sub(r"\\(.)", r"\1", value[1:-1]) if value.startswith('"') else value
    limit = comparable(column, value)
    compare: dict[str, Callable[[Any], bool]] = {
        "eq": lambda found: found == limit,
        "gt": lambda found: found > limit,
        "gte": lambda found: found >= limit,
        "lt": lambda found: found < limit,
    }
    return lambda row: row[column] is not None and compare[operator](comparable(column, row[column]))


def any_of(group: str) -> Test:
    tests = [one(part) for part in parts(group)]
    return lambda row: any(test(row) for test in tests)


def all_of(group: str) -> Test:
    tests = [one(part) for part in parts(group)]
    return lambda row: all(test(row) for test in tests)


def parts(group: str) -> Iterator[str]:
    """The members of "(a,b,and(c,d))", minding quotes and brackets."""
    depth, is_quoted, part = 0, False, ""
    for escaped, mark in re.findall(r"(\\.)|(.)", group[1:-1], re.DOTALL):
        is_quoted ^= mark == '"'
        depth += 0 if is_quoted else (mark == "(") - (mark == ")")
        if mark == "," and not depth and not is_quoted:
            yield part
            part = ""
        else:
            part += escaped or mark
    yield part


@cache
def comparable(column: str, value: str) -> Any:
    """Text as the database would compare it (C collation)."""
    return pd.to_datetime(value, format="ISO8601", utc=True) if column in TIMES else str(value)
