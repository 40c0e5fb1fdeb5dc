"""Mutation testing of the load-bearing modules: `make mutate`, see CONTRIBUTING.md.

Faults are drawn by seed, a larger sample holding the smaller one; each runs against the tests that reach it.
Verdicts are kept in build/mutation: what was killed stays killed as long as the module is the same, what
survived is tried again when a test of its group changed.
"""

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from math import comb
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from groups import Group, Reach, reach, read_groups
from mutants import Fault, Module, Mutant
from trees import ROOT, Tree
from verdicts import Verdicts, equivalents, is_equivalent

BUILD: Final = ROOT / "build" / "mutation"
PROCESSES: Final = 2
KILLED: Final = ("killed", "timeout")
GRACE: Final = 30
"""Seconds that the mutants in hand have once the minutes are over."""
WANTED: Final = 0.9
"""The share of faults that the tests must notice."""
BY_CHANCE: Final = 0.001
"""How seldom a suite that notices the wanted share may fail a check for its sample alone."""


def draw(group: Group, root: Path, seed: int) -> list[Fault]:
    """The group's faults in an order that the seed decides."""
    faults = [fault for path in group.modules for fault in Module(root, path).faults]
    random.Random(seed).shuffle(faults)
    return faults


def lowest(drawn: int) -> int:
    """The fewest kills of `drawn` that do not tell against the wanted share: a suite that has it gets fewer
    in less than one sample of 1,000, by the binomial distribution.
    """
    at_most = 0.0
    for kills in range(drawn + 1):
        at_most += comb(drawn, kills) * WANTED**kills * (1 - WANTED) ** (drawn - kills)
        if at_most >= BY_CHANCE:
            return kills
    return drawn


@dataclass(frozen=True)
class Judged:
    mutant: Mutant
    verdict: str
    tests: int


def judge(
    faults: Sequence[Fault],
    digest: str,
    reached: Reach,
    trees: SimpleQueue[Tree],
    verdicts: Verdicts,
    end: float,
) -> Iterator[Judged]:
    """Each fault's verdict, in their order; those whose turn comes after `end` are left out."""
    listed = equivalents()

    def one(fault: Fault) -> Judged | None:
        mutant, tests = fault.render(), reached.tests(fault)
        if is_equivalent(mutant, listed):
            return Judged(mutant, "equivalent", len(tests))
        if not tests:
            return Judged(mutant, "not reached", 0)
        known = verdicts.known(mutant, digest)
        if known is None and time.monotonic() > end:
            return None
        if known is None:
            tree = trees.get()
            left, limit = end + GRACE - time.monotonic(), reached.limit(tests)
            try:
                found = tree.judge(mutant, tests, min(left, limit))
            finally:
                trees.put(tree)
            if found["verdict"] == "timeout" and left < limit:
                return None  # it was cut for our own time: that says nothing
            known = verdicts.add(mutant, digest, found)
            say(f"{known['verdict']:9} {known['seconds']:6.1f} s  {mutant.path}: {mutant.scope}")
        return Judged(mutant, known["verdict"], len(tests))

    with ThreadPoolExecutor(PROCESSES) as pool:
        yield from (judged for judged in pool.map(one, faults) if judged)


def table(name: str, judged: Sequence[Judged], in_all: Counter[str]) -> str:
    """Figures by module: how many faults there are, were drawn, are equivalent, were killed."""
    rows = [f"| {name} | faults | drawn | equivalent | killed | score |", "|---|---|---|---|---|---|"]
    for module in [*in_all, ""]:
        mine = [one for one in judged if not module or one.mutant.path == module]
        same, killed = (sum(one.verdict in kind for one in mine) for kind in (("equivalent",), KILLED))
        faults, title = (in_all[module], module) if module else (in_all.total(), "**all**")
        score = f"{killed / (len(mine) - same):.0%}" if len(mine) > same else "-"
        rows.append(f"| {title} | {faults:,} | {len(mine)} | {same} | {killed} | {score} |")
    return "\n".join(rows)


def survivors(judged: Sequence[Judged]) -> str:
    return "\n".join(
        f"\n{one.mutant.path}:{one.mutant.lines[0]} in {one.mutant.scope or 'the module'}: "
        f"{one.verdict}, {one.tests} tests\n- {one.mutant.was}\n+ {one.mutant.becomes}".replace(
            "\n", "\n    "
        )
        for one in judged
        if one.verdict in ("survived", "not reached")
    )


def say(text: str) -> None:
    print(text, flush=True)  # noqa: T201


def main() -> int:
    groups = read_groups()
    parser = argparse.ArgumentParser(description="Plant single faults and see whether the tests notice.")
    parser.add_argument(
        "--group", action="append", choices=[*groups, "any"], help="all, or by the seed any one"
    )
    parser.add_argument("--sample", type=int, help="faults to draw from each group; default: all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no mutant after these")
    parser.add_argument("--check", action="store_true", help="fail on a score that is surely too low")
    options = parser.parse_args()
    end, chosen = time.monotonic() + 60 * options.minutes, options.group or list(groups)
    if chosen == ["any"]:
        chosen = [random.Random(options.seed).choice(list(groups))]
    BUILD.mkdir(parents=True, exist_ok=True)
    report, failed = [], []
    with tempfile.TemporaryDirectory(dir=BUILD, prefix="trees-") as scratch, ExitStack() as stack:
        digests = {name: groups[name].digest() for name in chosen}
        trees, free = [Tree(Path(scratch), number) for number in range(PROCESSES)], SimpleQueue[Tree]()
        for tree in trees:
            free.put(tree)
            stack.callback(tree.close)
        for name in chosen:
            faults = draw(groups[name], trees[0].path, options.seed)
            in_all = Counter(fault.module.path for fault in faults)
            reached = reach(groups[name], digests[name], trees, BUILD)
            verdicts = Verdicts(BUILD / "verdicts.jsonl")
            judged = list(judge(faults[: options.sample], digests[name], reached, free, verdicts, end))
            report.append(table(name, judged, in_all) + "\n" + survivors(judged))
            say(f"\n{report[-1]}\n")
            if complaint := too_few(name, judged):
                failed.append(complaint)
    (BUILD / "report.md").write_text("\n\n".join(report) + "\n", encoding="utf-8")
    say("\n".join(failed))
    return int(bool(failed) and options.check)


def too_few(name: str, judged: Sequence[Judged]) -> str | None:
    """What to say of a sample that shows the score to be below the wanted one; None of any other."""
    counted = [one for one in judged if one.verdict != "equivalent"]
    killed = sum(one.verdict in KILLED for one in counted)
    if killed >= lowest(len(counted)):
        return None
    return (
        f"mutate: {name}: expected at least {lowest(len(counted))} of {len(counted)} faults noticed (a suite "
        f"that notices {WANTED:.0%} gets fewer in one sample of {1 / BY_CHANCE:,.0f}), got {killed}: "
        "add tests that fail with the faults above, or list those that change nothing in "
        "tests/mutation/equivalent.toml"
    )


if __name__ == "__main__":
    sys.exit(main())
