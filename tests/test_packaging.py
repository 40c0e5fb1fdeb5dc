"""The wheel holds everything, and works where nothing else is."""

import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"kronos_service": ROOT / "kronos-service", "kronos_shared": ROOT / "shared"}


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
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", out, ROOT, cwd=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_data_file(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    for name, folder in PACKAGES.items():
        tracked = run("git", "ls-files", folder, cwd=ROOT).splitlines()
        expected = {f"{name}/{(ROOT / path).relative_to(folder)}" for path in tracked}
        assert expected <= inside


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_alone_runs_the_sample_job(wheel: Path, tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    bin_ = tmp_path / "venv" / ("Scripts" if sys.platform == "win32" else "bin")
    run(bin_ / "python", "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel, cwd=tmp_path)
    assert "--snapshot" in run(bin_ / "kronos-finetune", "event-lora", "--help", cwd=tmp_path)
    shown = run(bin_ / "python", "-m", "kronos_service.finetune", "event-lora", "--epochs", "1", cwd=tmp_path)
    assert "Success criteria" in shown
    assert (tmp_path / "runs").is_dir()
