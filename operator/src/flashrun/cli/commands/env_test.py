"""``flash env test``: an environment tried on this machine, before it costs GPU time."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flashrun.api import catalog
from flashrun.api.config import Algorithm, RunConfig
from flashrun.api.env_check_records import EnvCheckTask, ScoredAnswer
from flashrun.cli.config import compose, dotenv, load_config
from flashrun.cli.environments.env_check import Finding, Level, Plan, Trial, judge, rehearse
from flashrun.cli.options import Form, Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import ExitCode
from flashrun.cli.output.tables import Cell, Table, Tone
from flashrun.plan.resolve import resolve_train


def try_environment(
    folder: Annotated[Path, typer.Argument(help="Folder with environment.py.")] = Path(),
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="TOML of a run: its params, secrets, algorithm, thinking and lengths are used.",
            metavar="FILE",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Which dataset/<split>.jsonl; train by default.")
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--param", help="Argument of load_environment; repeat it.", metavar="KEY=VALUE"
        ),
    ] = None,
    thinking: Annotated[
        bool, typer.Option("--thinking", help="Check as for a run with thinking = true.")
    ] = False,
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="How many rows are scored; all are checked.")
    ] = 20,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Seconds that all of it may take.")
    ] = 120,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the environment prints.")
    ] = False,
    output: Form = Output.TABLE,
) -> None:
    """Try an environment here: check every row, build every prompt, score right and junk answers.

    Nothing is sent anywhere. Ends with 2 when a run would fail; warnings alone end with 0.

    Example: flash env test ./sums --config sums/configs/rl.toml
    """
    composed = load_config.read(config, None, None).config if config else None
    given = {
        **(composed.environment.params if composed else {}),
        **compose.assignments(params or ()),
    }
    if split is not None:
        given["split"] = split
    plan = plan_of(composed, thinking)
    task = EnvCheckTask(
        folder=str(folder.resolve()),
        thinking=plan.thinking,
        split=str(given.get("split", catalog.DEFAULT_SPLIT)),
        params=given,
        scored=rows,
    )
    trial = rehearse(task, timeout, _variables(composed, config), verbose=verbose)
    findings = judge(trial, plan)
    _print(trial, findings, output)
    if any(finding.level is Level.ERROR for finding in findings):
        raise typer.Exit(ExitCode.USAGE)


def plan_of(config: RunConfig | None, thinking: bool) -> Plan:
    """Return what a run would do; with the defaults of the recipes when no config says."""
    if config is None:
        tokens = catalog.max_tokens_default(thinking)
        length = catalog.max_length_default(Algorithm.GRPO, thinking, tokens)
        return Plan(None, thinking, tokens, length)
    train, reasons = resolve_train(config), config.thinking or thinking
    tokens = train.max_tokens or catalog.max_tokens_default(reasons)
    return Plan(config.algorithm, reasons, tokens, train.max_length)


def _variables(config: RunConfig | None, path: Path | None) -> dict[str, str]:
    """Return what the run's environment variables would be, as far as they are set here."""
    if config is None or path is None:
        return {}
    places = dotenv.sources(os.environ, dict.fromkeys((Path.cwd(), path.resolve().parent)))
    found = dotenv.lookup(config.environment.secrets, places)
    if missing := [name for name in config.environment.secrets if name not in found]:
        terminal.say(f"note: no value is set for {', '.join(missing)} of environment.secrets")
    return {**config.worker_env, **found}


def _print(trial: Trial, findings: list[Finding], output: Output) -> None:
    if output in (Output.JSON, Output.YAML):
        terminal.write_data(_data(trial, findings), output)
        return
    if output is Output.TABLE and (scored := [row for row in trial.rows if row.junk]):
        rows = (
            (
                Cell(str(row.number)),
                Cell(_one_line(row.prompt)),
                Cell(_one_line(row.answer)),
                Cell(_score(row.gold)),
                Cell(" ".join(map(_score, row.junk))),
            )
            for row in scored
        )
        header = ("ROW", "PROMPT", "ANSWER", "SCORE", "SCORES OF JUNK")
        terminal.write_table(Table(header, tuple(rows)))
    for finding in findings:
        tone = Tone.BAD if finding.level is Level.ERROR else Tone.PLAIN
        terminal.say(f"{finding.level}: {finding}", tone)
    if not findings:
        terminal.say(f"{len(trial.rows)} rows are fine", Tone.GOOD)


def _score(play: ScoredAnswer | None) -> str:
    if play is None:
        return ""
    return "failed" if play.score is None else f"{play.score:g}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


def _data(trial: Trial, findings: list[Finding]) -> dict[str, Any]:
    return {
        "ok": not any(finding.level is Level.ERROR for finding in findings),
        "rows": next((event.rows for event in trial.events if event.rows is not None), 0),
        "scored": [row.model_dump(mode="json") for row in trial.rows if row.junk],
        "findings": [
            {"level": str(finding.level), "place": finding.place, "sentence": finding.sentence}
            for finding in findings
        ],
    }
