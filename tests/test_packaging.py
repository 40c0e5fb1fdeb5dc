"""Sdist and wheel hold everything, and the wheel works where nothing else is."""

import os
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"kronos_service": ROOT / "kronos-service", "kronos_shared": ROOT / "shared"}

CORE = (
    "finetune.event_conditioned.event_lora",
    "finetune.event_conditioned.evaluate",
    "finetune.event_conditioned.ablate",
    "finetune.event_conditioned.audit.audit",
    "finetune.event_conditioned.report.document",
    "finetune.export_training_data",
    "finetune.import_tables",
    "finetune.merge",
    "finetune.push",
    "finetune.pretrain.pretrain",
    "data.sources.supabase",
    "data.sample",
    "inference.forecast.command",
    "inference.forecast.chart",
    "forecaster",
    "integrations.nixtla",
)
"""The work of every command and front door that needs no extra."""
OF_EXTRAS = (
    *("fastapi", "starlette", "uvicorn", "prometheus_client", "structlog"),
    *("adbc_driver_manager", "adbc_driver_postgresql"),
)
IMPORTS = f"""
import importlib, importlib.util
print(*[name for name in {OF_EXTRAS} if importlib.util.find_spec(name)])
for module in {CORE}:
    importlib.import_module(f"kronos_service.{{module}}")
"""


def test_every_package_on_disk_is_declared() -> None:
    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    found = {
        ".".join((name, *init.parent.relative_to(folder).parts))
        for name, folder in PACKAGES.items()
        for init in folder.rglob("__init__.py")
    }
    assert declared == found


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a release is built already (DIST), or a new one: the wheel is made from the sdist."""
    if "DIST" in os.environ:
        return Path(os.environ["DIST"])
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", out, ROOT, cwd=out)
    return out


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (built,) = dist.glob("*.whl")
    return built


def tracked(*folders: str | Path) -> list[str]:
    return run("git", "ls-files", *folders, cwd=ROOT).splitlines()


@pytest.mark.slow
def test_the_sdist_holds_what_the_wheel_is_made_from(dist: Path) -> None:
    (built,) = dist.glob("*.tar.gz")
    with tarfile.open(built) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {*tracked("kronos-service", "shared"), "pyproject.toml", "README.md", "LICENSE"} <= inside


@pytest.mark.slow
def test_the_wheel_says_what_it_needs_and_where_it_comes_from(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = archive.read(name).decode()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for line in (
        f"Version: {project['version']}",
        f"Requires-Python: {project['requires-python']}",
        *(f"Project-URL: {label}, {url}" for label, url in project["urls"].items()),
        *(f"Provides-Extra: {extra}" for extra in project["optional-dependencies"]),
        "# Event-conditioned Kronos",
    ):
        assert f"\n{line}\n" in metadata, line


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for name, folder in PACKAGES.items():
        expected = {f"{name}/{(ROOT / path).relative_to(folder)}" for path in tracked(folder)}
        assert expected <= inside


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_alone_imports_every_core_command_and_runs_the_sample_job(
    wheel: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    run(bin_ / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    assert run(bin_ / "python", "-c", IMPORTS, cwd=tmp_path) == "\n", "an extra's package came with the core"
    assert "--snapshot" in run(bin_ / "kronos-finetune", "event-lora", "--help", cwd=tmp_path)
    job = ["-m", "kronos_service.finetune", "event-lora", "--epochs", "1"]
    shown = run(bin_ / "python", *job, "--no-control", "--promote", "if-better", cwd=tmp_path)
    assert "Success criteria" in shown
    assert (tmp_path / "runs").is_dir()
