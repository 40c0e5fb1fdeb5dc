"""doctor: each fault is on its own line and hides no other, and no secret is on any."""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kronos_service.data.snapshot.read import load_snapshot
from kronos_service.finetune.__main__ import main
from kronos_service.finetune.doctor.hub import PROXIES, check_hub
from kronos_service.finetune.doctor.machine import check_device, check_disk, check_keys
from kronos_service.model.factory import NANO_DIRECTORY
from kronos_shared.adapter_manifest import LATEST
from kronos_shared.adapter_store import latest_version, publish

NAMES = ["torch", "device", "machine", "disk", "hub", "base", "snapshot", "calendar", "adapters", "keys"]
COMMITS = {"someone/tuned": "1" * 40, "someone/words": "2" * 40}
TUNED = [
    *("--base-model", "someone/tuned", "--tokenizer", "someone/words"),
    *("--revision", COMMITS["someone/tuned"], "--tokenizer-revision", COMMITS["someone/words"]),
]
DATABASES = ("SUPABASE_URL", "SUPABASE_KEY", "DATABASE_URL")


class Hub(ThreadingHTTPServer):
    """A local server in the hub's place, or in a proxy's."""

    daemon_threads = True
    status = 200

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.free = threading.Event()
        self.free.set()
        super().__init__(("127.0.0.1", 0), Answer)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.server.asked.append(self.path)
        self.server.free.wait(60)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No proxy, no key and an empty hub cache."""
    for name in (*PROXIES, *DATABASES):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://{server.address}")
        yield server
        server.shutdown()


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> str:
    """An address at which nothing listens, in the hub's place."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"http://{address}")
    return address


def cache(tmp_path: Path, *repos: str) -> None:
    """Put the packaged base into the hub cache, under the names of two repositories."""
    for repo in repos:
        part = "predictor" if repo == "someone/tuned" else "tokenizer"
        folder = f"models--{repo.replace('/', '--')}"
        shutil.copytree(NANO_DIRECTORY / part, tmp_path / "hub" / folder / "snapshots" / COMMITS[repo])


@pytest.fixture
def ready(
    tmp_path: Path, market_path: Path, base_path: Path, adapter_of: Callable[[int], Path], hub: Hub
) -> list[str]:
    """Flags of a run that nothing stands in the way of; its snapshot and store may be damaged."""
    assert hub
    shutil.copytree(market_path, tmp_path / "market")
    publish(adapter_of(1), tmp_path / "store", keep=3)
    places = ["--snapshot", str(tmp_path / "market"), "--adapter-store", str(tmp_path / "store")]
    return [*places, "--base-model", str(base_path)]


def diagnose(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, dict[str, str], dict[str, str]]:
    """Exit code, and status and text by check."""
    code = main(["doctor", *flags])
    said = capsys.readouterr()
    assert "Traceback" not in said.out + said.err
    lines = [line.split(maxsplit=2) for line in said.out.splitlines()]
    assert [name for _, name, _ in lines] == NAMES
    return code, {name: status for status, name, _ in lines}, {name: text for _, name, text in lines}


def test_what_is_ready_is_ok_on_every_line(ready: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code, status, text = diagnose(capsys, *ready, "--device", "cpu")
    assert code == 0
    # how full this machine is, and that no database is set up, is not the test's to say
    assert {name: status[name] for name in NAMES if name not in ("machine", "disk")} == {
        **dict.fromkeys(set(NAMES) - {"machine", "disk"}, "ok"),
        "keys": "note",
    }
    snapshot = load_snapshot(ready[1])
    assert snapshot.sha256[:12] in text["snapshot"]
    assert "2022-12-30" in text["snapshot"]
    assert str(latest_version(Path(ready[3])).name) in text["adapters"]  # type: ignore[union-attr]
    assert torch.__version__ in text["torch"]


def _break_snapshot(flags: list[str], _: pytest.MonkeyPatch) -> None:
    next(Path(flags[1]).glob("ohlcv_1d-*")).write_bytes(b"no parquet")


def _break_latest(flags: list[str], _: pytest.MonkeyPatch) -> None:
    (Path(flags[3]) / LATEST).write_text("{}")


def _break_adapter(flags: list[str], _: pytest.MonkeyPatch) -> None:
    version = latest_version(Path(flags[3]))
    assert version is not None
    (version / "event_emb.safetensors").write_bytes(b"")


def _break_base(flags: list[str], _: pytest.MonkeyPatch) -> None:
    flags[5] = "smal"


def _break_runs(_: list[str], patch: pytest.MonkeyPatch) -> None:
    assert patch
    Path("runs").write_text("in the way")


def _break_disk_library(_: list[str], patch: pytest.MonkeyPatch) -> None:
    def usage(_: Any) -> None:
        raise RuntimeError("with words that may be secret")

    patch.setattr(shutil, "disk_usage", usage)


BREAKS: dict[str, tuple[Callable[[list[str], pytest.MonkeyPatch], None], set[str], str, str]] = {
    "snapshot": (_break_snapshot, {"snapshot"}, "snapshot", "export the snapshot again"),
    "LATEST": (_break_latest, {"adapters"}, "adapters", "not a valid pointer"),
    "adapter": (_break_adapter, {"adapters"}, "adapters", "event_emb.safetensors"),
    "base": (_break_base, {"base"}, "base", "did you mean small?"),
    "runs": (_break_runs, {"disk"}, "disk", "runs is not a directory"),
    "library": (_break_disk_library, {"disk"}, "disk", "cannot be checked (RuntimeError)"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_fault_is_on_its_line_and_hides_no_other(
    case: str, ready: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    damage, faults, line, words = BREAKS[case]
    damage(ready, monkeypatch)
    code, status, text = diagnose(capsys, *ready)
    assert code == 1
    assert {name for name in NAMES if status[name] == "fault"} == faults
    assert words in text[line]
    assert "may be secret" not in str(text)


def test_a_fault_of_every_kind_at_once_still_makes_ten_lines(
    nowhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nowhere
    Path("runs").write_text("in the way")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / LATEST).write_text("{")
    flags = ["--snapshot", "nothing", "--base-model", "small", "--adapter-store", str(tmp_path / "store")]
    code, status, text = diagnose(capsys, *flags, "--device", "cuda")
    assert code == 1
    faults = {name for name in NAMES if status[name] == "fault"}
    assert faults - {"device"} == {"disk", "hub", "snapshot", "adapters"}
    assert ("device" in faults) != torch.cuda.is_available()
    assert "NeoQuasar/Kronos-small at 901c26c13326" in text["base"]
    assert "does not load" in text["calendar"]


def test_without_a_torch_that_loads_the_other_checks_still_answer(nowhere: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from kronos_service.finetune.__main__ import main; "
        "sys.exit(main(['doctor']))"
    )
    variables = {**os.environ, "HF_ENDPOINT": f"http://{nowhere}"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=variables
    )
    assert (done.returncode, done.stderr) == (1, "")
    lines = [line.split(maxsplit=2) for line in done.stdout.splitlines()]
    assert [name for _, name, _ in lines] == NAMES
    faults = {name for status, name, _ in lines if status == "fault"}
    assert faults == {"torch", "device", "base", "adapters"}
    assert "pip install" in lines[0][2]


def test_a_base_in_the_cache_is_shown_with_commit_and_hash_and_needs_no_hub(
    nowhere: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nowhere
    cache(tmp_path, "someone/tuned")
    code, status, text = diagnose(capsys, *TUNED)
    assert code == 1
    assert (status["hub"], status["base"]) == ("fault", "note")
    assert "someone/words at 222222222222" in text["base"]
    assert "someone/tuned" not in text["base"]

    cache(tmp_path, "someone/words")
    code, status, text = diagnose(capsys, *TUNED)
    assert code == 0
    assert (status["hub"], status["base"]) == ("note", "ok")
    for repo, part in (("someone/tuned", "predictor"), ("someone/words", "tokenizer")):
        digest = hashlib.sha256((NANO_DIRECTORY / part / "model.safetensors").read_bytes()).hexdigest()
        assert f"{repo} at {COMMITS[repo][:12]} (sha256 {digest[:12]})" in text["base"]


def test_offline_is_a_fault_only_for_a_base_that_is_not_in_the_cache(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    code, status, text = diagnose(capsys, *TUNED)
    assert (code, status["hub"], status["base"]) == (1, "fault", "fault")
    cache(tmp_path, *COMMITS)
    code, status, text = diagnose(capsys, *TUNED)
    assert (code, status["hub"], status["base"]) == (0, "ok", "ok")
    assert "HF_HUB_OFFLINE" in text["hub"]
    assert hub.asked == []


@pytest.mark.parametrize(("needed", "silence"), [(True, "fault"), (False, "note")])
def test_a_hub_that_answers_refuses_hangs_or_fails(
    needed: bool, silence: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = check_hub(needed)
    assert (answered.status, hub.asked) == ("ok", ["/"])
    hub.status = 404  # a mirror need not have a page at its root
    assert check_hub(needed).status == "ok"
    hub.status = 503
    assert (check_hub(needed).status, "503" in check_hub(needed).text) == (silence, True)
    hub.status = 407
    assert "password" in check_hub(needed).text
    hub.status = 200
    hub.free.clear()
    hangs = check_hub(needed, seconds=0.2)
    hub.free.set()
    assert (hangs.status, "within 0.2 s" in hangs.text) == (silence, True)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        monkeypatch.setattr(
            huggingface_hub.constants, "ENDPOINT", f"http://127.0.0.1:{unused.getsockname()[1]}"
        )
        refuses = check_hub(needed)
    assert (refuses.status, "refused" in refuses.text) == (silence, True)
    assert "HF_ENDPOINT" in refuses.remedy


def test_the_hub_is_asked_as_the_environment_says_and_none_of_its_secrets_is_shown(hub: Hub) -> None:
    """In a process of its own, since the hub's library reads the mirror once."""
    code = "from kronos_service.finetune.doctor.hub import check_hub; print(check_hub(True).line())"

    def asked(**variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **variables},
        )
        assert "s3cret" not in done.stdout + done.stderr
        return done.stdout

    assert "the mirror that HF_ENDPOINT names answers" in asked(
        HF_ENDPOINT=f"http://u:s3cret@{hub.address}/m"
    )
    assert hub.asked == ["/m"]
    told = asked(HF_ENDPOINT="http://hub.invalid", HTTP_PROXY=f"http://u:s3cret@{hub.address}")
    assert "answers (HTTP_PROXY set)" in told
    assert hub.asked[1:] == ["http://hub.invalid"] or hub.asked[1:] == ["http://hub.invalid/"]
    # this proxy makes no tunnels
    tunnel = asked(HF_ENDPOINT="https://hub.invalid", HTTPS_PROXY=f"http://u:s3cret@{hub.address}")
    assert "the proxy refuses (HTTPS_PROXY set)" in tunnel
    assert "HF_HUB_OFFLINE" in asked(HF_HUB_OFFLINE="1")
    assert len(hub.asked) == 2


SECRETS = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=12)
FORMS = (
    "{}",
    "http://user:{}@127.0.0.1:9/",
    "socks5://user:{}@127.0.0.1:9",
    "http://127.0.0.1:{}/",
    "{}://x",
)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(name=st.sampled_from(PROXIES), form=st.sampled_from(FORMS), secret=SECRETS)
def test_no_secret_of_a_proxy_or_a_mirror_is_shown(nowhere: str, name: str, form: str, secret: str) -> None:
    assert nowhere
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(name, form.format(secret))
        found = check_hub(True, seconds=0.5)
        assert secret not in found.line()
        assert name in found.text
        patch.delenv(name)
        patch.setattr(huggingface_hub.constants, "ENDPOINT", form.format(secret))
        assert secret not in check_hub(True, seconds=0.5).line()


@pytest.mark.parametrize(
    ("is_set", "status"),
    [
        ((), "note"),
        (("SUPABASE_URL",), "note"),
        (("SUPABASE_KEY", "DATABASE_URL"), "note"),
        (("SUPABASE_URL", "SUPABASE_KEY"), "ok"),
        (("DATABASE_URL",), "ok"),
    ],
)
def test_keys_are_set_or_not_and_never_shown(
    is_set: tuple[str, ...], status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in is_set:
        monkeypatch.setenv(name, f"postgresql://{name}:s3cret@db.example/x")
    found = check_keys()
    assert found.status == status
    assert "s3cret" not in found.line()
    assert "db.example" not in found.line()
    for name in DATABASES:
        assert (f"{name} set" in found.text) == (name in is_set)


def plain_tables(directory: Path, market_path: Path) -> pd.DataFrame:
    """The market as tables without a manifest, and its calendar for a test to write."""
    market = load_snapshot(market_path)
    directory.mkdir(exist_ok=True)
    market.bars.to_parquet(directory / "ohlcv_1d.parquet")
    market.symbols.to_parquet(directory / "symbols.parquet")
    return market.calendar


def test_data_that_training_lacks_is_named(
    market_path: Path, tmp_path: Path, hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hub
    directory = tmp_path / "tables"
    calendar = plain_tables(directory, market_path)
    file = directory / "economic_calendar.parquet"

    calendar[calendar["release_at"] < "2023-01-06"].to_parquet(file)
    code, status, text = diagnose(capsys, "--snapshot", str(directory))
    assert (code, status["snapshot"], status["calendar"]) == (0, "note", "note")
    assert "without a manifest" in text["snapshot"]
    assert "load the schedule until 2023-01-09" in text["calendar"]

    calendar.assign(currency="EUR").to_parquet(file)
    bars = pd.read_parquet(directory / "ohlcv_1d.parquet")
    bars[bars["symbol"] != "VIX"].to_parquet(directory / "ohlcv_1d.parquet")
    code, status, text = diagnose(capsys, "--snapshot", str(directory))
    assert (code, status["snapshot"], status["calendar"]) == (1, "fault", "fault")
    assert "none of leader VIX" in text["snapshot"]


def test_an_adapter_of_another_base_is_noted_with_what_to_name(
    ready: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, status, text = diagnose(capsys, *ready[:4])
    assert (code, status["adapters"]) == (0, "note")
    assert "made for base tiny" in text["adapters"]
    assert "--base-model" in text["adapters"]


def test_an_adapter_whose_base_is_not_here_is_whole_and_not_tried(
    ready: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, status, text = diagnose(capsys, *ready[:4], "--base-model", "small")
    assert (code, status["hub"], status["base"], status["adapters"]) == (0, "ok", "note", "note")
    assert "until its base is here" in text["adapters"]


def test_full_disks_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    for free, status in ((9e8, "fault"), (4e9, "note"), (6e9, "ok")):
        monkeypatch.setattr(shutil, "disk_usage", lambda _, free=free: usage._replace(free=int(free)))
        found = check_disk([tmp_path / "runs"])
        assert (found.status, bool(found.remedy)) == (status, status != "ok")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """What torch would say of a GPU; its product is computed on the CPU."""
    ones = torch.ones
    for name, answer in {
        "is_available": True,
        "get_device_name": "NVIDIA Test",
        "get_device_capability": (9, 0),
        "mem_get_info": (70 * 10**9, 80 * 10**9),
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda answer=answer: answer)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: not including_emulation)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: ones(*shape) if device == "cuda" else None)
    return monkeypatch


def test_a_gpu_is_described(gpu: pytest.MonkeyPatch) -> None:
    for wanted in ("auto", "cuda"):
        found = check_device(wanted)
        text = "NVIDIA Test, compute capability 9.0, bf16, 70.0 of 80.0 GB free"
        assert (found.status, found.line()) == ("ok", text)
    gpu.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert (check_device("auto").status, "no bf16" in check_device("auto").text) == ("note", True)
    gpu.setattr(torch.cuda, "mem_get_info", lambda: (5 * 10**9, 80 * 10**9))
    assert "--vram-budget" in check_device("auto").remedy
    assert check_device("cpu").line() == "the CPU, as asked"


def test_a_gpu_that_cannot_be_used_is_told_with_torchs_words(gpu: pytest.MonkeyPatch) -> None:
    def no_kernel(*_: int, device: str) -> None:
        raise RuntimeError(f"no kernel image is available for execution on {device}\nmore words")

    gpu.setattr(torch, "ones", no_kernel)
    found = check_device("auto")
    assert (found.status, "more words" in found.text) == ("fault", False)
    assert "does not compute: no kernel image" in found.text

    def old_driver() -> bool:
        warnings.warn("The NVIDIA driver on your system is too old\nand so on", stacklevel=1)
        return False

    gpu.setattr(torch.cuda, "is_available", old_driver)
    gpu.setattr(torch.version, "cuda", "12.8")
    for wanted, status in (("auto", "note"), ("cuda", "fault")):
        found = check_device(wanted)
        assert (found.status, "driver on your system is too old)" in found.text) == (status, True)
        assert "nvidia-smi" in found.remedy


@pytest.mark.gpu
def test_the_gpu_of_this_machine_computes() -> None:
    found = check_device("cuda")
    assert found.status in ("ok", "note")
    assert torch.cuda.get_device_name() in found.text
