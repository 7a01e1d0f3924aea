"""``flash env test``: check an environment on this machine, before it costs GPU time."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from flashrun.api import catalog, evaluation
from flashrun.api.config import Algorithm, RunConfig
from flashrun.api.env_check_records import CheckEvent, EnvCheckTask, ScoredAnswer
from flashrun.cli.cluster import mirrored_tokenizer
from flashrun.cli.cluster.connection import connect
from flashrun.cli.config import compose, dotenv, load_config
from flashrun.cli.config.compose import ComposedConfig
from flashrun.cli.environments import pod_likeness
from flashrun.cli.environments.env_check import (
    EnvCheckResult,
    EnvFinding,
    PlannedRun,
    Severity,
    assess,
    check_possible,
    run_env_check,
)
from flashrun.cli.environments.package import check_is_environment
from flashrun.cli.models.model_name import check_model_name, check_revision
from flashrun.cli.new_folder import expanded
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import ExitCode, Failure, NotFoundFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table, Tone

_SYNTAX: Final = "SyntaxError"


def check_environment(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder with environment.py or a project.", metavar="FOLDER"),
    ] = Path(),
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="Config of a run; its params, secrets, algorithm, thinking and lengths are used.",
            metavar="FILE",
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Check dataset/<split>.jsonl; by default train.jsonl."),
    ] = None,
    params: Annotated[
        list[str] | None,
        typer.Option(
            "--param", help="Argument of load_environment; can be repeated.", metavar="KEY=VALUE"
        ),
    ] = None,
    thinking: Annotated[
        bool, typer.Option("--thinking", help="Check as for a run with thinking = true.")
    ] = False,
    rows: Annotated[
        int, typer.Option("--rows", min=1, help="Number of rows to score; all are checked.")
    ] = 20,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Model whose chat template and tokenizer read every message: its folder, or its "
            "id in the platform's mirror as ORG/NAME or ORG/NAME@REVISION.",
            metavar="MODEL",
        ),
    ] = None,
    pip: Annotated[
        bool,
        typer.Option(
            "--pip/--no-pip", help="Install the pip list of the config, as the pod does; kept here."
        ),
    ] = True,
    python: Annotated[
        Path | None,
        typer.Option(
            "--python",
            help="Python that has verifiers, for an environment of it; by default that of flash.",
            metavar="FILE",
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", min=1, help="Time limit in seconds.")
    ] = 120,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the environment prints.")
    ] = False,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Check an environment on this machine.

    Checks every row, builds every prompt, and scores right and junk answers. Nothing is sent
    anywhere. The exit code is 2 when a run would fail, and 0 when there are only warnings.

    The code runs as in a pod: a copy of what env push would publish, the packages of the trainer
    image and of the pip list, the config's secrets and worker_env, a read-only working folder.

    Only --model with an id connects to the cluster: it downloads a tokenizer, and no weights.

    Example: flash env test ./sums --config sums/configs/rl.toml
    """
    composed = load_config.read_config(config, None, None) if config else None
    given = {
        **(composed.config.environment.params if composed else {}),
        **compose.parse_assignments(params or ()),
    }
    if split is not None:
        given["split"] = split
    run = planned_run(composed, thinking)
    task = EnvCheckTask(
        id=composed.config.environment.id if composed else "",
        folder=str(folder.resolve()),
        algorithm=run.algorithm,
        thinking=run.thinking,
        split=str(given.get("split", catalog.DEFAULT_SPLIT)),
        params=given,
        scored=rows,
        held_out=evaluation_split(composed),
        held_out_required=composed is not None and composed.config.eval.split is not None,
        python=str(python.absolute()) if python else "",
        model=str(_model_folder(model, folder, namespace, context)) if model else "",
    )
    variables = _variables(composed.config, config.resolve().parent) if composed and config else {}
    pip_list = composed.config.environment.pip if composed and pip else ()
    result = _check(task, pip_list, timeout, variables, verbose=verbose)
    findings = assess(result, run)
    _print(result, findings, output)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise typer.Exit(ExitCode.USAGE)


def _check(
    task: EnvCheckTask,
    pip_list: Sequence[str],
    seconds: float,
    variables: Mapping[str, str],
    *,
    verbose: bool,
) -> EnvCheckResult:
    """Install the pip list, and run the check; without the packages it would find nothing more."""
    folder = Path(task.folder)
    if pip_list and check_is_environment(folder) is None:  # --python has what verifiers needs
        check_possible(folder, with_tokenizer=bool(task.model))
        site = pod_likeness.packages_folder(pip_list)
        if not site.is_dir():
            terminal.say(f"note: installing {', '.join(pip_list)} into {site}")
            if fault := pod_likeness.install_packages(pip_list, site):
                return EnvCheckResult((CheckEvent(fault=fault), CheckEvent(over=True)))
        task = task.replace(site=str(site))
    return run_env_check(task, seconds, variables, verbose=verbose)


def planned_run(composed: ComposedConfig | None, thinking: bool) -> PlannedRun:
    """Return the run of a config; one with the default lengths when there is no config."""
    if composed is None:
        tokens = catalog.max_tokens_default(thinking)
        length = catalog.max_length_default(Algorithm.GRPO, thinking, tokens)
        return PlannedRun(None, thinking, tokens, length)
    config, train = composed.config, composed.train
    thinks = config.thinking or thinking
    tokens = train.max_tokens or catalog.max_tokens_default(thinks)
    return PlannedRun(config.algorithm, thinks, tokens, train.max_length)


def evaluation_split(composed: ComposedConfig | None) -> str:
    """Return the split on which a run would be evaluated; empty when it would not."""
    if composed is None:
        return evaluation.DEFAULT_SPLIT
    given = composed.config.eval
    return (given.split or evaluation.DEFAULT_SPLIT) if given.enabled else ""


def _model_folder(
    model: str, environment: Path, namespace: str | None, context: str | None
) -> Path:
    """Return the folder of a model; the tokenizer of a mirrored one is downloaded.

    Raises:
        Failure: neither the folder nor the model in the mirror exists.
    """
    folder = expanded("--model", model)
    if folder.is_dir():
        return folder.resolve()
    name, _, revision = model.partition("@")
    try:
        check_model_name(name)
        if revision:
            check_revision(revision)
    except Failure as failure:
        raise NotFoundFailure(
            f"folder {model} does not exist, and {failure.sentence}",
            "give the folder of a model, or its id in the platform's mirror",
        ) from None
    check_possible(environment, with_tokenizer=True)
    try:
        return asyncio.run(_fetch(name, revision or None, namespace, context))
    except Failure as failure:
        way = "give the folder of a downloaded model to --model"
        raise type(failure)(
            f"the tokenizer of {name} is not available: {failure.sentence}",
            f"{failure.hint}; or {way}" if failure.hint else way,
        ) from None


async def _fetch(
    model: str, revision: str | None, namespace: str | None, context: str | None
) -> Path:
    async with connect(context, namespace) as session:
        return await mirrored_tokenizer.fetch_tokenizer(session, model, revision)


def _variables(config: RunConfig, folder: Path) -> dict[str, str]:
    """Return the run's environment variables, as far as the secrets have values here."""
    secrets = config.environment.secrets
    values = dotenv.find_values(secrets, [folder])
    if missing := [name for name in secrets if name not in values]:
        terminal.say(f"note: no value is set for {', '.join(missing)} of environment.secrets")
    return {**config.worker_env, **values}


def _print(result: EnvCheckResult, findings: list[EnvFinding], output: OutputFormat) -> None:
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        terminal.write_data(_data(result, findings), output)
        return
    if output is OutputFormat.TABLE and (scored := [row for row in result.rows if row.junk]):
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
        tone = Tone.BAD if finding.severity is Severity.ERROR else Tone.PLAIN
        terminal.say(f"{finding.severity}: {finding}", tone)
    if not findings:
        terminal.say(f"{len(result.rows)} rows checked, no problems", Tone.GOOD)
    code = [
        finding for finding in findings if ".py" in finding.place or _SYNTAX in finding.sentence
    ]
    if (difference := pod_likeness.python_difference()) and (code or not findings):
        terminal.say(f"note: {difference}")


def _score(answer: ScoredAnswer | None) -> str:
    if answer is None:
        return ""
    return "failed" if answer.score is None else f"{answer.score:g}"


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:59]}…"


def _data(result: EnvCheckResult, findings: list[EnvFinding]) -> dict[str, Any]:
    return {
        "ok": not any(finding.severity is Severity.ERROR for finding in findings),
        "rows": next((event.rows for event in result.events if event.rows is not None), 0),
        "scored": [row.model_dump(mode="json") for row in result.rows if row.junk],
        "findings": [
            {"level": str(finding.severity), "place": finding.place, "sentence": finding.sentence}
            for finding in findings
        ],
    }
