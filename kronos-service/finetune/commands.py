"""The commands: each parses its own flags and calls the function that does the work.

The work is imported where it is called, so that `--help` of one command does not load the libraries of all.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, cast

from kronos_service.data.sources import SOURCES, open_source
from kronos_shared.command_line import Command
from kronos_shared.options import option, parse, parse_given, require

if TYPE_CHECKING:
    from kronos_service.data.bar_filter import OnBadRow

PROGRAM = "python -m kronos_service.finetune"


def event_lora(argv: Sequence[str]) -> int:
    """Train an event-conditioned LoRA adapter on a frozen base, judge it, and publish it."""
    from kronos_service.finetune.event_conditioned.config import EventLoraConfig, EventLoraFlags

    about = _help(event_lora, EVENT_LORA_EXAMPLES)
    given = parse_given(EventLoraFlags, argv, prog=f"{PROGRAM} event-lora", description=about)
    resume = given.pop("resume", False)
    config = None if resume else EventLoraConfig(**given)

    from kronos_service.finetune.event_conditioned import event_lora as job

    return _unless_stopped(lambda: job.event_lora(config) if config else job.resume_event_lora(given))


def _unless_stopped(work: Callable[[], object]) -> int:
    """Do the work; where a signal ended it with a checkpoint written, say so and give the exit code."""
    from kronos_service.finetune.event_conditioned.training.distributed import process_number
    from kronos_service.finetune.event_conditioned.training.signals import Stopped

    try:
        work()
    except Stopped as stopped:
        if process_number() == 0:
            sys.stderr.write(f"{stopped}\n")
        return stopped.exit_code
    return 0


def evaluate(argv: Sequence[str]) -> None:
    """Score an adapter against its base on a split."""
    from kronos_service.finetune.event_conditioned.evaluate import EvaluateConfig
    from kronos_service.finetune.event_conditioned.evaluate import evaluate as run

    run(parse(EvaluateConfig, argv, prog=f"{PROGRAM} evaluate", description=_help(evaluate)))


def ablate(argv: Sequence[str]) -> int:
    """Train the adapter with one thing changed at a time, and compare target by target."""
    from kronos_service.finetune.event_conditioned.ablation.config import AblateConfig

    about = _help(ablate, ABLATE_EXAMPLES)
    config = parse(AblateConfig, argv, prog=f"{PROGRAM} ablate", description=about)

    from kronos_service.finetune.event_conditioned.ablate import ablate as run

    return _unless_stopped(lambda: run(config))


def report(argv: Sequence[str]) -> None:
    """Write the report of a run, or of an evaluation, as one HTML file."""
    from kronos_service.finetune.event_conditioned.report import terminal
    from kronos_service.finetune.event_conditioned.report.document import ReportConfig
    from kronos_service.finetune.event_conditioned.report.document import report as run

    terminal.reported(
        run(parse(ReportConfig, _named(argv, "--run"), prog=f"{PROGRAM} report", description=_help(report)))
    )


def audit(argv: Sequence[str]) -> int:
    """Recompute independently what was known when, and show every input that knows the future."""
    from kronos_service.finetune.event_conditioned.audit.audit import AuditConfig, audit_snapshot

    config = parse(AuditConfig, argv, prog=f"{PROGRAM} audit", description=_help(audit, AUDIT_CODES))
    return 0 if audit_snapshot(config).passed else 1


def pretrain(argv: Sequence[str]) -> None:
    """Train a small tokenizer and predictor from a snapshot's bars, without events."""
    from kronos_service.finetune.pretrain.pretrain import PretrainConfig
    from kronos_service.finetune.pretrain.pretrain import pretrain as run

    run(parse(PretrainConfig, argv, prog=f"{PROGRAM} pretrain", description=_help(pretrain)))


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Settings of an export."""

    out: Path = option(help="directory of the snapshot; an older one there stays until the new one is whole")
    source: str = option(
        "supabase",
        choices=tuple(SOURCES),
        help="where to read: SUPABASE_URL and SUPABASE_KEY, or DATABASE_URL, or a directory of tables",
    )
    tables: Path | None = option(None, help="with --source snapshot: the directory of tables to read")
    since: date | None = option(None, help="first session date of the bars; all there are if left out")
    on_bad_row: str = option(
        "fail",
        choices=("fail", "drop"),
        help="a bar that cannot be true stops the export, or is dropped and listed",
    )
    incremental: bool = option(
        False, help="add what is new to the snapshot in --out, and keep what its calendar knew before"
    )
    resume: bool = option(
        False, help="do not read again what an interrupted export of the same rows had read"
    )

    def __post_init__(self) -> None:
        require(
            (self.source == "snapshot") == (self.tables is not None),
            "--tables names the directory that --source snapshot reads: give both or neither",
        )
        require(
            not (self.incremental and self.resume),
            "--resume goes on with a full export, --incremental reads only what is new: give one of them",
        )


def export(argv: Sequence[str]) -> None:
    """Read candles and calendar from Supabase, PostgreSQL or plain tables into a validated snapshot."""
    from kronos_service.data.coverage import print_coverage, read_coverage
    from kronos_service.finetune.export_training_data import export as run

    config = parse(ExportConfig, argv, prog=f"{PROGRAM} export", description=_help(export))
    with open_source(config.source, config.tables) as source:
        summary = run(
            source,
            config.out,
            since=config.since,
            on_bad_row=cast("OnBadRow", config.on_bad_row),
            incremental=config.incremental,
            resume=config.resume,
        )
    sys.stdout.write("\n".join(summary.lines()) + "\n")
    print_coverage(read_coverage(config.out))


def import_(argv: Sequence[str]) -> None:
    """Read candles and calendar from your own csv or parquet files into a validated snapshot."""
    from kronos_service.finetune.import_tables import ImportConfig, import_tables

    import_tables(parse(ImportConfig, argv, prog=f"{PROGRAM} import", description=_help(import_)))


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Settings of the sample market."""

    out: Path = option(help="directory to write the snapshot to")
    seed: int = option(0, help="seed of the market; 0 is the embedded one")
    symbols: int = option(24, help="tradable US equities, SPY among them")
    start: date = option(date(2020, 1, 1), help="first day")
    end: date = option(date(2026, 3, 31), help="last day of the bars")


def sample(argv: Sequence[str]) -> None:
    """Write a snapshot of the seeded sample market, whose event effects are known."""
    from kronos_service.data.sample import write_sample

    config = parse(SampleConfig, argv, prog=f"{PROGRAM} sample", description=_help(sample))
    write_sample(config.out, seed=config.seed, symbols=config.symbols, start=config.start, end=config.end)


COMMANDS: dict[str, Command] = {
    "event-lora": event_lora,
    "evaluate": evaluate,
    "ablate": ablate,
    "report": report,
    "audit": audit,
    "export": export,
    "import": import_,
    "pretrain": pretrain,
    "sample": sample,
}

EVENT_LORA_EXAMPLES = f"""
examples:
  {PROGRAM} event-lora --control
      the embedded sample market and base: a few minutes on two cores
  {PROGRAM} event-lora --snapshot data/snapshots/2026-11 --base-model NeoQuasar/Kronos-base --control
      your own snapshot (made by export) and the released base
  {PROGRAM} event-lora --config run.toml --epochs 5
      settings from a file; flags win
  {PROGRAM} event-lora --resume
      goes on with the newest run under runs/ that was stopped, killed or cut off
  accelerate launch --num_processes 2 -m kronos_service.finetune event-lora --control
      the same run on two GPUs

exit code: 0 done, 2 a mistake, 130 or 143 stopped by Ctrl-C or SIGTERM with a checkpoint written
"""

ABLATE_EXAMPLES = f"""
examples:
  {PROGRAM} ablate
      every arm on the embedded sample, three seeds; the same command goes on after a stop
  {PROGRAM} ablate --vary blank_probability=0.5 weight_decay=0.1 --epochs 5
      the adapter, its control, and the adapter with one setting changed, twice
"""

AUDIT_CODES = "exit code: 0 when nothing was found, 1 with the rows that show a fault\n"


def _named(argv: Sequence[str], flag: str) -> Sequence[str]:
    """The flags with the first word, where it is none, as the value of `flag`."""
    return [flag, *argv] if argv and not argv[0].startswith("-") else argv


def _help(command: Command, more: str = "") -> str:
    return f"{command.__doc__}\n{more}"
