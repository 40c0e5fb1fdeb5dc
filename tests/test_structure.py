"""The imports of the installed package: no circle, every arrow downwards, no module that only re-exports."""

import ast
import importlib
import sys
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from importlib.util import find_spec
from pathlib import Path

import grimp
import pytest

PACKAGES = ("kronos_service", "kronos_shared")
FLOORS = (
    {"kronos_shared"},
    {"kronos_service.events"},
    {"kronos_service.data", "kronos_service.model"},
    {"kronos_service.finetune", "kronos_service.inference"},
    {"kronos_service.forecaster"},
    {"kronos_service.integrations"},
)
"""From the ground up; packages on one floor do not import each other."""
REQUESTED_NAMES = {
    "kronos_service.finetune.shared",
    "kronos_service.finetune.export_training_data",
    "kronos_service.finetune.train_event_conditioned",
}
"""The request names these paths, so they stay importable whatever they hold."""
MOST_MODULES = 15


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*PACKAGES, cache_dir=None)


def circles(graph: grimp.ImportGraph) -> Iterator[str]:
    """A circle of the modules or packages inside each package, where it has one."""
    for package in sorted(graph.modules):
        children = sorted(graph.find_children(package))
        needs = {child: set(_imported_siblings(graph, child, children)) for child in children}
        try:
            TopologicalSorter(needs).prepare()
        except CycleError as error:
            yield f"{package}: {' <- '.join(error.args[1])}"


def _imported_siblings(graph: grimp.ImportGraph, child: str, siblings: Iterable[str]) -> Iterator[str]:
    for module in {child} | graph.find_descendants(child):
        for imported in graph.find_modules_directly_imported_by(module):
            yield from (other for other in siblings if other != child and _is_inside(imported, other))


def _is_inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def rising_arrows(graph: grimp.ImportGraph, floors: tuple[set[str], ...] = FLOORS) -> Iterator[str]:
    """Imports of a package on the same floor or above."""
    floor_of = {package: number for number, floor in enumerate(floors) for package in floor}
    for module in sorted(graph.modules):
        home = next((package for package in floor_of if _is_inside(module, package)), None)
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            target = next((package for package in floor_of if _is_inside(imported, package)), None)
            if home and target and home != target and floor_of[target] >= floor_of[home]:
                yield f"{module} -> {imported}"


def re_exports(modules: Iterable[str]) -> Iterator[str]:
    """Modules that import and define nothing."""
    for module in sorted(modules):
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        body = ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body
        others = [node for node in body if not _is_docstring(node) and not _is_all(node)]
        if others and all(isinstance(node, ast.Import | ast.ImportFrom) for node in others):
            yield module


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _is_all(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]


def test_no_modules_and_no_packages_import_each_other_in_a_circle(graph: grimp.ImportGraph) -> None:
    assert list(circles(graph)) == []


def test_every_arrow_between_packages_points_down(graph: grimp.ImportGraph) -> None:
    assert list(rising_arrows(graph)) == []


def test_no_module_only_re_exports_but_those_that_the_request_names(graph: grimp.ImportGraph) -> None:
    assert set(re_exports(graph.modules)) <= REQUESTED_NAMES


@pytest.mark.parametrize("name", sorted(REQUESTED_NAMES))
def test_the_names_of_the_request_are_importable(name: str) -> None:
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("package", ["kronos_service.inference", "kronos_service.finetune.event_conditioned"])
def test_few_modules_lie_at_the_top_of_a_large_package(graph: grimp.ImportGraph, package: str) -> None:
    modules = [child for child in graph.find_children(package) if not graph.find_children(child)]
    assert len(modules) <= MOST_MODULES


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[grimp.ImportGraph]:
    """A package with one fault of each kind: it shows that the checks above can fail."""
    for name, text in {
        "planted/__init__.py": "",
        "planted/low/__init__.py": "",
        "planted/low/one.py": "def f() -> None:\n    from planted.low import two\n\n    print(two)\n",
        "planted/low/two.py": "import planted.low.one\n\nNUMBER = 2\n",
        "planted/low/three.py": "from planted.high.four import NUMBER as N\n\nTHREE = N - 1\n",
        "planted/high/__init__.py": "",
        "planted/high/four.py": "NUMBER = 4\n",
        "planted/high/five.py": '"Words."\nfrom planted.high.four import NUMBER\n\n__all__ = ["NUMBER"]\n',
    }.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    graph = grimp.build_graph("planted", cache_dir=None)
    yield graph
    for module in graph.modules:
        sys.modules.pop(module, None)


def test_planted_faults_are_found(planted: grimp.ImportGraph) -> None:
    (circle,) = circles(planted)
    assert "planted.low.one" in circle
    assert "planted.low.two" in circle
    floors = ({"planted.low"}, {"planted.high"})
    assert list(rising_arrows(planted, floors)) == ["planted.low.three -> planted.high.four"]
    assert list(re_exports(planted.modules)) == ["planted.high.five"]
