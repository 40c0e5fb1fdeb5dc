"""Services as processes of their own, and a real browser that looks at their page.

`make test-ui` runs these tests: it installs Debian's Chromium and fetches axe-core (AXE).
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Route
from replica import Replica, running

from kronos_service.data.sample import sample_snapshot_path
from kronos_service.model.packaged import SAMPLE_ADAPTERS
from kronos_shared.adapter_manifest import MANIFEST, AdapterManifest
from kronos_shared.adapter_store import latest_version, publish

READY_SECONDS: Final = 60
FAILED: Final = re.compile(r"Failed to load resource: .*?(?:status of (\d+)|ERR_\w+)")
"""What Chromium itself says of every answer that is an error, and of none."""
NO_ANSWER: Final = 0
POLICY: Final = "Content Security Policy"
RUN_AXE: Final = """async () => {
    const found = await axe.run(document, { resultTypes: ["violations"] });
    return found.violations
        .filter(({ impact }) => impact === "serious" || impact === "critical")
        .map(({ id, nodes }) => `${id}: ${nodes.map(({ target }) => target.join(" ")).join(", ")}`);
}"""

NewService = Callable[..., Replica]
Visit = Callable[..., Page]
Serious = Callable[[Page], list[str]]


@pytest.fixture(scope="session")
def two_versions(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], tuple[str, str]]:
    """Publishes the packaged adapter twice into a store, as versions that differ in when they were made."""
    packaged = latest_version(SAMPLE_ADAPTERS)
    assert packaged is not None
    manifest = AdapterManifest.from_bytes((packaged / MANIFEST).read_bytes())
    later = tmp_path_factory.mktemp("later") / "adapter"
    later.mkdir()
    for file in packaged.iterdir():
        (later / file.name).write_bytes(file.read_bytes())
    changed = manifest.model_copy(update={"created_at": "2026-11-27T00:00:00+00:00"})
    (later / MANIFEST).write_bytes(changed.to_bytes())

    def into(store: Path) -> tuple[str, str]:
        first, second = (publish(one, store, keep=9).version for one in (packaged, later))
        return first, second

    return into


@pytest.fixture(scope="session")
def replica_in(two_versions: Callable[[Path], tuple[str, str]]) -> Callable[..., Replica]:
    """A service in a directory of its own, with two versions of the sample adapter; not started."""

    def make(root: Path, *, snapshot: Path | None = None, **settings: Any) -> Replica:
        two_versions(root / "adapters")
        return Replica(
            adapters=root / "adapters",
            directory=root / "replica",
            base="nano",
            snapshot=snapshot or sample_snapshot_path(),
            settings={name: str(value) for name, value in settings.items()},
        )

    return make


@pytest.fixture(scope="session")
def service(
    replica_in: Callable[..., Replica], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replica]:
    """A service that asks for keys; no test changes it."""
    replica = replica_in(tmp_path_factory.mktemp("service"))
    with running(replica):
        yield replica


@pytest.fixture
def new_service(replica_in: Callable[..., Replica], tmp_path: Path) -> Iterator[NewService]:
    """Services of one test, with changed settings."""
    with ExitStack() as stack:

        def start(*, waits: bool = True, **settings: Any) -> Replica:
            replica = replica_in(tmp_path, **settings)
            stack.callback(replica.kill)
            replica.start()
            replica.wait_until_ready(probe="/readyz" if waits else "/livez")
            return replica

        yield start


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address that `serve --demo` prints, of one that is ready."""
    directory = tmp_path_factory.mktemp("demo")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("KRONOS_")}
    with (directory / "log").open("wb") as log, (directory / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "kronos_service.inference", "serve", "--demo"],
            env=inherited | {"KRONOS_PORT": "0"},
            cwd=directory,
            stdout=said,
            stderr=log,
        )
    try:
        yield _address(process, directory)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def _address(process: "subprocess.Popen[bytes]", directory: Path) -> str:
    until = time.monotonic() + READY_SECONDS
    while True:
        found = re.search(r"^open (http://\S+)/ui ", (directory / "said").read_text(), re.M)
        if found and _is_ready(found[1]):
            return found[1]
        assert process.poll() is None, (directory / "log").read_text()
        assert time.monotonic() < until, (directory / "log").read_text()
        time.sleep(0.1)


def _is_ready(address: str) -> bool:
    return httpx.get(f"{address}/readyz", trust_env=False).status_code == 200


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    """Opens the page of a service in a browser of its own, and fails the test for what went wrong there: a
    request to anywhere else, which is aborted, an error on the console, or one that nobody caught.

    `allowed` answers may fail (0: there is none), `blocks` says that the policy has something to block.
    """
    wrong: list[str] = []
    contexts = []

    def open_page(
        address: str,
        *,
        key: str | None = None,
        admin_key: str | None = None,
        allowed: Collection[int] = (),
        size: tuple[int, int] = (1280, 900),
        scheme: Any = "light",
        fragment: str = "",
        path: str = "/ui",
        blocks: bool = False,
        waits: bool = True,
    ) -> Page:
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,
            locale="en-GB",
            timezone_id="Europe/Berlin",
        )
        contexts.append(context)

        def abort(route: Route) -> None:
            wrong.append(f"a request to {route.request.url}")
            route.abort()

        def note(message: ConsoleMessage) -> None:
            is_expected = _is_allowed(message.text, allowed) or (blocks and POLICY in message.text)
            if message.type == "error" and not is_expected:
                wrong.append(f"on the console: {message.text}")

        context.route(lambda url: urlsplit(url).hostname != "127.0.0.1", abort)
        page = context.new_page()
        page.on("console", note)
        page.on("pageerror", lambda error: wrong.append(f"not caught: {error}"))
        keys = {"forecast": key, "admin": admin_key}
        given = {f"kronos-key-{role}": value for role, value in keys.items() if value is not None}
        for name, value in given.items():
            page.add_init_script(
                f"if (!sessionStorage.getItem('once-{name}')) {{ sessionStorage.setItem('once-{name}', '1');"
                f" sessionStorage.setItem('{name}', '{value}'); }}"
            )
        page.goto(f"{address}{path}{fragment}")
        if waits:
            page.locator("#forecast[aria-busy='false']:not(.is-empty)").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert wrong == []


def _is_allowed(text: str, allowed: Collection[int]) -> bool:
    found = FAILED.match(text)
    return found is not None and int(found[1] or NO_ANSWER) in allowed


@pytest.fixture(scope="session")
def serious() -> Serious:
    """What axe-core calls serious or critical on a page: rule and elements, one a line."""
    script = os.environ.get("AXE")
    assert script, "AXE names no axe.min.js: make test-ui fetches it"
    source = Path(script).read_text(encoding="utf-8")

    def run(page: Page) -> list[str]:
        page.evaluate(source)  # past the page's policy, which allows no script of a test
        found: list[str] = page.evaluate(RUN_AXE)
        return found

    return run
