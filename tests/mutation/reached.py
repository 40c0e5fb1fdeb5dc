"""Which tests reach which line: one run of a group's tests under coverage, unmutated.

What a fixture of a module or a session reaches counts for every test that uses it, not for the first alone;
so does what a cached function reaches, for every test that asks it.
"""

import functools
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import coverage
import pytest


class Contexts:
    """Name what coverage records by the test, or the shared fixture, that was running."""

    def __init__(self, recorder: coverage.Coverage, files: set[str]) -> None:
        self.recorder, self.files = recorder, files
        self.now = ""
        self.seconds: dict[str, float] = {}
        self.users: dict[str, set[str]] = defaultdict(set)
        """Of each shared fixture and cached function: the tests, or other such, that use it."""

    def pytest_collection_finish(self) -> None:
        """Watch the caches of the modules, which are all imported by now."""
        for module in list(sys.modules.values()):
            file = getattr(module, "__file__", None)
            if not file or str(Path(file).resolve()) not in self.files:
                continue
            for name, value in list(vars(module).items()):
                if isinstance(value, type):
                    for attribute, kept in list(vars(value).items()):
                        if isinstance(kept, functools.cached_property):
                            setattr(value, attribute, property(kept.func))
                elif hasattr(value, "cache_clear"):
                    setattr(module, name, self._watched(value))

    def _watched(self, cached: Any) -> Callable[..., Any]:
        context = f"cached {cached.__module__}.{cached.__qualname__}"

        def ask(*args: Any, **named: Any) -> Any:
            before = self.now
            self.users[context].add(before)
            self._switch(context)
            try:
                return cached(*args, **named)
            finally:
                self._switch(before)

        return functools.update_wrapper(ask, cached, assigned=("cache_clear", "cache_info"))

    def tests_of(self, context: str) -> set[str]:
        """The tests that use what ran under a name."""
        users = self.users.get(context)
        return {context} if users is None else {test for one in users if one for test in self.tests_of(one)}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        for definitions in getattr(item, "_fixtureinfo").name2fixturedefs.values():  # noqa: B009
            for definition in definitions:
                self.users[_name(definition)].add(item.nodeid)
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
    files = {module: str(Path(module).resolve()) for module in modules}
    recorder = coverage.Coverage(data_file=None, include=list(files.values()))
    contexts = Contexts(recorder, set(files.values()))
    recorder.start()
    code = pytest.main(arguments, plugins=[contexts])
    recorder.stop()
    data, lines = recorder.get_data(), {}
    for module, file in files.items():
        lines[module] = {
            str(line): sorted({test for name in names if name for test in contexts.tests_of(name)})
            for line, names in data.contexts_by_lineno(file).items()
        }
    out.write_text(json.dumps({"seconds": contexts.seconds, "lines": lines}))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), json.loads(sys.argv[2]), json.loads(sys.argv[3])))
