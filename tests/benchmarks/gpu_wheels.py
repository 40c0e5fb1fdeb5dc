"""Carry what a GPU machine without a network lacks: wheels for Python 3.12 on Linux, in build/gpu-wheels.

The machine has PROVIDED, in versions that are not ours to choose, so what these need may differ. Everything
else that the package and its service need goes into the folder, at the versions of constraints.txt, and the
package itself; pip takes from it only what is missing there. With a checkout beside it:
`make gpu-report WHEELS=build/gpu-wheels`.
"""

import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "gpu-wheels"
PROVIDED = (
    "numpy",
    "transformers",
    "tokenizers",
    "torch",
    "peft",
    "accelerate",
    "pandas",
    "pyarrow",
    "tensorboard",
    "matplotlib",
    "pytest",
    # What matplotlib and tensorboard need and is large:
    "contourpy",
    "fonttools",
    "grpcio",
    "kiwisolver",
    "pillow",
    "protobuf",
)
MACHINE = {"python_version": "3.12", "python_full_version": "3.12.0"}
MOST_BYTES = 45 * 10**6
PLATFORMS = [f"manylinux_2_{glibc}_x86_64" for glibc in (28, 27, 26, 24, 17, 12, 5)] + [
    "manylinux2014_x86_64"
]
TARGET = ["--only-binary", ":all:", "--python-version", "3.12"]
TARGET += [word for one in PLATFORMS for word in ("--platform", one)]


def pip(*words: str) -> str:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout


def needed_by(*requirements: str) -> set[str]:
    """Names of all that these need on the GPU machine, by what is installed here."""
    found, todo = set(), [Requirement(one) for one in requirements]
    while todo:
        one = todo.pop()
        key = (canonicalize_name(one.name), frozenset(one.extras))
        if key in found:
            continue
        found.add(key)
        for text in distribution(one.name).requires or []:
            needed = Requirement(text)
            if needed.marker is None or any(
                needed.marker.evaluate({**MACHINE, "extra": extra}) for extra in (*one.extras, "")
            ):
                todo.append(needed)
    return {name for name, _ in found}


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(OUT), ".")
    carried = needed_by("kronos-events[serve]") - needed_by("torch") - {*PROVIDED, "kronos-events"}
    pinned = [f"{name}=={distribution(name).version}" for name in sorted(carried)]
    pip("download", "--no-deps", "--dest", str(OUT), *TARGET, *pinned)
    wheels = sorted(OUT.iterdir())
    total = sum(one.stat().st_size for one in wheels)
    sys.stdout.write(f"{len(wheels)} wheels, {total / 1e6:.1f} MB in {OUT.relative_to(ROOT)}\n")
    if total > MOST_BYTES:
        sys.stderr.write(f"error: more than {MOST_BYTES / 1e6:.0f} MB\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
