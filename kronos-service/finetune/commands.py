"""The commands: each checks its flags and calls the function that does the work.

The work is imported only then: torch and its like take seconds to load, which neither `--help` nor a mistyped
flag should cost.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any, TypeVar

from kronos_service.data.sources import open_source
from kronos_service.finetune import PROGRAM
from kronos_service.finetune.config import (
    ExportConfig,
    ImportConfig,
    MergeConfig,
    PretrainConfig,
    PushConfig,
    SampleConfig,
    TaxonomyConfig,
)
from kronos_service.finetune.event_conditioned.ablation.config import AblateConfig
from kronos_service.finetune.event_conditioned.config import (
    AuditConfig,
    DoctorConfig,
    EvaluateConfig,
    EventLoraConfig,
    EventLoraFlags,
    ReportConfig,
)
from kronos_service.finetune.event_conditioned.folds.config import WalkForwardConfig
from kronos_service.finetune.event_conditioned.scorecard.config import ScorecardConfig
from kronos_shared.cli import Command, ConfigError, Settings, parse, parse_given

SettingsT = TypeVar("SettingsT", bound=Settings)


def event_lora(argv: Sequence[str]) -> int:
    """Train an event-conditioned LoRA adapter on a frozen base, judge it, and publish it."""
    given = parse_given(EventLoraFlags, argv, **_about(event_lora))
    flags = EventLoraFlags(**given)
    given = {name: value for name, value in given.items() if name in EventLoraConfig.model_fields}
    if flags.plan:
        from kronos_service.finetune.event_conditioned.plan import show_plan

        show_plan(EventLoraConfig(**given))
        return 0
    config = None if flags.resume else EventLoraConfig(**given)

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
    config = _settings(EvaluateConfig, argv, evaluate)

    from kronos_service.finetune.event_conditioned.evaluate import evaluate as run

    run(config)


def ablate(argv: Sequence[str]) -> int:
    """Train the adapter with one thing changed at a time, and compare target by target."""
    config = _settings(AblateConfig, argv, ablate)

    from kronos_service.finetune.event_conditioned.ablate import ablate as run

    return _unless_stopped(lambda: run(config))


def walk_forward(argv: Sequence[str]) -> int:
    """Train and score one period after another, each by what came before it, and pool the targets."""
    config = _settings(WalkForwardConfig, argv, walk_forward)

    from kronos_service.finetune.event_conditioned.walk_forward import walk_forward as run

    return _unless_stopped(lambda: run(config))


def report(argv: Sequence[str]) -> None:
    """Write the report of a run, or of an evaluation, as one HTML file."""
    config = _settings(ReportConfig, _first_are(["--run"], argv), report)

    from kronos_service.finetune.event_conditioned.report import terminal
    from kronos_service.finetune.event_conditioned.report.document import report as run

    terminal.reported(run(config))


def audit(argv: Sequence[str]) -> int:
    """Recompute independently what was known when, and show every input that knows the future."""
    config = _settings(AuditConfig, argv, audit)

    from kronos_service.finetune.event_conditioned.audit.audit import audit_snapshot

    return 0 if audit_snapshot(config).passed else 1


def scorecard(argv: Sequence[str]) -> int:
    """Score past forecasts against what came, per version and month; with --alert, for cron."""
    config = _settings(ScorecardConfig, argv, scorecard)

    from kronos_service.finetune.event_conditioned.scorecard.command import exit_code, score_forecasts_made

    _, coverage = score_forecasts_made(config)
    return exit_code(config, coverage)


def pretrain(argv: Sequence[str]) -> None:
    """Train a small tokenizer and predictor from a snapshot's bars, without events."""
    config = _settings(PretrainConfig, argv, pretrain)

    from kronos_service.finetune.pretrain.pretrain import pretrain as run

    run(config)


def merge(argv: Sequence[str]) -> None:
    """Merge an adapter's LoRA into its base for code that knows no events, and say what is lost."""
    config = _settings(MergeConfig, _first_are(["--adapter"], argv), merge)

    from kronos_service.finetune.merge import merge as run

    run(config)


def push(argv: Sequence[str]) -> None:
    """Upload an adapter to the Hugging Face hub, with its card, and say what it is named there."""
    config = _settings(PushConfig, _first_are(["--adapter", "--repo"], argv), push)

    from kronos_service.finetune.push import push as run

    run(config)


def export(argv: Sequence[str]) -> None:
    """Read candles and calendar from Supabase, PostgreSQL or plain tables into a validated snapshot."""
    config = _settings(ExportConfig, argv, export)

    from kronos_service.data.coverage import print_coverage, read_coverage
    from kronos_service.events.taxonomy import read_taxonomy
    from kronos_service.finetune.export_training_data import export as run

    with open_source(config.source, config.tables) as source:
        summary = run(
            source,
            config.out,
            since=config.since,
            on_bad_row=config.on_bad_row,
            incremental=config.incremental,
            resume=config.resume,
            accept=config.accept,
            interval=config.interval,
            taxonomy=None if config.taxonomy is None else read_taxonomy(config.taxonomy),
        )
    sys.stdout.write("\n".join(summary.lines()) + "\n")
    print_coverage(read_coverage(config.out))


def import_(argv: Sequence[str]) -> None:
    """Read candles and calendar from your own csv or parquet files into a validated snapshot."""
    config = _settings(ImportConfig, argv, import_)

    from kronos_service.finetune.import_tables import import_tables

    import_tables(config)


def taxonomy(argv: Sequence[str]) -> None:
    """Explain the channels that a file of your own event types and leaders makes: taxonomy check FILE."""
    if argv and not argv[0].startswith("-"):
        if argv[0] != "check":
            raise ConfigError(f"expected taxonomy check FILE, got taxonomy {argv[0]}")
        argv = _first_are(["--file"], argv[1:])
    config = _settings(TaxonomyConfig, argv, taxonomy)

    from kronos_service.finetune.taxonomy import check_taxonomy

    check_taxonomy(config.file)


def sample(argv: Sequence[str]) -> None:
    """Write a snapshot of the seeded sample market, whose event effects are known."""
    config = _settings(SampleConfig, argv, sample)

    from kronos_service.data.sample import write_sample
    from kronos_service.data.sample_worlds import US_MACRO, own_events

    write_sample(
        config.out,
        seed=config.seed,
        symbols=config.symbols,
        start=config.start,
        end=config.end,
        world=own_events() if config.own_events else US_MACRO,
    )


def doctor(argv: Sequence[str]) -> int:
    """Check machine, hub, base, data, adapters and keys before a real run, a line each."""
    config = _settings(DoctorConfig, argv, doctor)

    from kronos_service.finetune.doctor.examination import doctor as run

    return 0 if run(config) else 1


COMMANDS: Mapping[str, Command] = {
    "event-lora": event_lora,
    "evaluate": evaluate,
    "ablate": ablate,
    "walk-forward": walk_forward,
    "report": report,
    "scorecard": scorecard,
    "audit": audit,
    "export": export,
    "import": import_,
    "pretrain": pretrain,
    "merge": merge,
    "push": push,
    "sample": sample,
    "taxonomy": taxonomy,
    "doctor": doctor,
}

EXAMPLES: Mapping[str, str] = {
    "event-lora": f"""
  {PROGRAM} event-lora
      the embedded sample market and base: a few minutes on two cores
  {PROGRAM} event-lora --snapshot data/snapshots/2026-11 --base-model NeoQuasar/Kronos-base
      your own snapshot (made by export) and the released base
  {PROGRAM} event-lora --config run.toml --epochs 5
      settings from a file; flags win
  {PROGRAM} event-lora --base-model base --plan
      what the released base would need on a GPU: memory, steps, time, disk; seconds, trains nothing
  {PROGRAM} event-lora --resume
      resumes the newest run under runs/ that was stopped, killed or cut off
  {PROGRAM} event-lora --no-control --promote if-better
      in half the time, without knowing what the events add
  accelerate launch --num_processes 2 -m kronos_service.finetune event-lora
      the same run on two GPUs

exit code: 0 done, 2 a mistake, 130 or 143 stopped by Ctrl-C or SIGTERM with a checkpoint written
""",
    "evaluate": f"""
  {PROGRAM} evaluate --adapter adapters
      the adapter that LATEST names, on the validation split of the sample market
  {PROGRAM} evaluate --adapter runs/mine/adapter --split test --open-test-split
      the test split, once everything is decided
""",
    "ablate": f"""
  {PROGRAM} ablate
      every arm on the embedded sample, three seeds; the same command resumes after a stop
  {PROGRAM} ablate --vary blank_probability=0.5 weight_decay=0.1 --epochs 5
      the adapter, its control, and the adapter with one setting changed, twice

exit code: 0 done, 2 a mistake, 130 or 143 stopped by Ctrl-C or SIGTERM with a checkpoint written
""",
    "walk-forward": f"""
  {PROGRAM} walk-forward
      the embedded sample, a fold per year from 2022 on, two seeds; the same command resumes after a stop
  {PROGRAM} walk-forward --snapshot data/snapshots/2026-11 --base-model runs/base --train-window 36m --publish
      your own snapshot; then an adapter trained to its end, published with what the folds showed

exit code: 0 done, 2 a mistake, 130 or 143 stopped by Ctrl-C or SIGTERM with a checkpoint written
""",
    "report": f"""
  {PROGRAM} report runs/mine
      writes runs/mine/report.html again
""",
    "scorecard": f"""
  {PROGRAM} scorecard --forecasts forecasts --snapshot data/snapshots/2026-11
      what forecast-all wrote, against the bars that have come since
  {PROGRAM} scorecard --forecasts forecasts log --snapshot data/snapshots/2026-11 --alert
      with what the service has answered; for cron

exit code: 0 done, 1 the coverage of the last days has left its band (with --alert), 2 a mistake
""",
    "audit": f"""
  {PROGRAM} audit --snapshot data/snapshots/2026-11
      all checks; --quick takes seconds

exit code: 0 when nothing was found, 1 with the rows that show a fault, 2 a mistake
""",
    "export": f"""
  {PROGRAM} export --out data/snapshots/2026-11
      from Supabase (SUPABASE_URL, SUPABASE_KEY)
  {PROGRAM} export --source postgres --out data/snapshots/2026-11 --incremental
      what is new in PostgreSQL (DATABASE_URL)
""",
    "import": f"""
  {PROGRAM} import --ohlcv prices.csv --calendar releases.csv --map map.toml --out snapshots/mine
      your own files; the map says what they call our columns
""",
    "pretrain": f"""
  {PROGRAM} pretrain --snapshot data/snapshots/2026-11 --out runs/base
      a base of your own, for event-lora --base-model runs/base
""",
    "merge": f"""
  {PROGRAM} merge adapters --out merged
      LATEST of the store: merged/predictor and merged/tokenizer for from_pretrained, without events
  {PROGRAM} merge runs/mine/adapter --base-model runs/base --out merged
      an adapter on a base of your own
""",
    "push": f"""
  {PROGRAM} push adapters user/kronos-fomc
      LATEST of the store, into a repository that only you can read; log in with `hf auth login` first
  {PROGRAM} push runs/mine/adapter user/kronos-fomc --public
      one run's adapter, for everybody
""",
    "sample": f"""
  {PROGRAM} sample --out sample --seed 1
      another market with the same event effects
  {PROGRAM} sample --out own --own-events
      a market of other events: two families, earnings of each symbol, a leader and a decoy
""",
    "taxonomy": f"""
  {PROGRAM} taxonomy check my_events.toml
      the channels that the file makes, and its hash; for export --taxonomy and import --taxonomy
""",
    "doctor": f"""
  {PROGRAM} doctor --snapshot data/snapshots/2026-11 --base-model NeoQuasar/Kronos-base
      what a run of event-lora with the same flags needs; trains and fetches nothing

exit code: 0 ready, 1 with a fault, 2 a mistake
""",
}


def _settings(settings: type[SettingsT], argv: Sequence[str], command: Command) -> SettingsT:
    return parse(settings, argv, **_about(command))


def _first_are(names: Sequence[str], argv: Sequence[str]) -> Sequence[str]:
    """The words of a command whose first ones are the values of flags, where they are no flags themselves."""
    values = list(takewhile(lambda word: not word.startswith("-"), argv[: len(names)]))
    named = [word for pair in zip(names, values, strict=False) for word in pair]
    return [*named, *argv[len(values) :]]


def _about(command: Command) -> dict[str, Any]:
    name = next(name for name, one in COMMANDS.items() if one is command)
    return {
        "prog": f"{PROGRAM} {name}",
        "description": command.__doc__,
        "epilog": f"examples:{EXAMPLES[name]}",
    }
