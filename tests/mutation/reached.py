"""Which tests reach which line: one run of a group's tests under coverage, unmutated.

What a fixture of a module or a session reaches counts for every test that uses it, not for the first alone.
"""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path
from typing import Any

import coverage
import pytest


class Contexts:
    """Name what coverage records by the test, or the shared fixture, that was running."""

    def __init__(self, recorder: coverage.Coverage) -> None:
        self.recorder = recorder
        self.now = ""
        self.seconds: dict[str, float] = {}
        self.fixtures: dict[str, set[str]] = defaultdict(set)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        for definitions in getattr(item, "_fixtureinfo").name2fixturedefs.values():  # noqa: B009
            for definition in definitions:
                self.fixtures[_name(definition)].add(item.nodeid)
        begin = time.monotonic()
        self._switch(item.nodeid)
        result = yield
        self._switch("")
        self.seconds[item.nodeid] = time.monotonic() - begin
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Generator[None, object, object]:
        before = self.now
        if fixturedef.scope != "function":
            self._switch(_name(fixturedef))
        try:
            return (yield)
        finally:
            self._switch(before)

    def _switch(self, context: str) -> None:
        self.now = context
        self.recorder.switch_context(context)


def _name(definition: Any) -> str:
    return f"fixture {definition.argname} of {definition.baseid}"


def main(out: Path, modules: list[str], arguments: list[str]) -> int:
    recorder = coverage.Coverage(data_file=None, include=[str(Path(module).resolve()) for module in modules])
    contexts = Contexts(recorder)
    recorder.start()
    code = pytest.main(arguments, plugins=[contexts])
    recorder.stop()
    data, lines = recorder.get_data(), {}
    for module in modules:
        by_line = data.contexts_by_lineno(str(Path(module).resolve()))
        lines[module] = {
            str(line): sorted(
                {test for name in names if name for test in contexts.fixtures.get(name) or {name}}
            )
            for line, names in by_line.items()
        }
    out.write_text(json.dumps({"seconds": contexts.seconds, "lines": lines}))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])))
