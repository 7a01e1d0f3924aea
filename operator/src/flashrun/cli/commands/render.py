"""``flash render``: print the FlashRun that ``flash train`` would submit, for git or kubectl."""

import secrets
import time
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.resource import SecretRef
from flashrun.cli.config import load_config, platform_cache, run_spec, sweep_file
from flashrun.cli.options import Config, Namespace, Overlays, Sets
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.output_format import OutputFormat


def render(
    config: Config,
    overlays: Overlays = None,
    sets: Sets = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run; by default a new one.")
    ] = None,
    name_hash: Annotated[
        bool,
        typer.Option(
            "--name-hash",
            help="Add a digest of the spec to --name: a changed config is a new run.",
        ),
    ] = False,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret",
            help="Existing Secret with environment.secrets; can be repeated.",
            metavar="NAME",
        ),
    ] = None,
    output: Annotated[
        OutputFormat, typer.Option("--output", "-o", help="yaml, json or name.")
    ] = OutputFormat.YAML,
    namespace: Namespace = None,
) -> None:
    """Print the FlashRun that train would submit.

    It never contains values of secrets; a note explains how to create the Secret that it needs. For
    the file of a sweep, all its runs are printed; --name is the name of the sweep.

    Example: flash render config.toml --name sums-1 | kubectl apply -f -
    """
    if sweep_file.is_sweep_file(config):
        if overlays:
            raise UsageFailure("a sweep names its configs itself", "leave out --config")
        _render_sweep(config, sets, name, secret, output, namespace)
        return
    if name_hash and name is None:
        raise UsageFailure(
            "--name-hash adds to a name, and --name is not given", "add --name, such as --name sums"
        )
    composed = load_config.read_config(config, overlays, sets)
    for note in load_config.check_with_platform(composed, platform_cache.load_platform()):
        terminal.say(f"note: {note}")
    generated = names.run_name(int(time.time()), secrets.token_hex(4))
    run = generated if name is None else _check_name(name)
    # The default Secret keeps its name when the config changes: its values were given once.
    refs = _secret_refs(composed.config, run, namespace, secret)
    if name_hash:
        run = _check_name(run_spec.name_with_digest(run, composed.config, refs))
    if output is OutputFormat.NAME:
        terminal.write(run)
    else:
        terminal.write_data(
            run_spec.run_manifest(composed.config, run, namespace, refs),
            OutputFormat.JSON if output is OutputFormat.JSON else OutputFormat.YAML,
        )


def _render_sweep(
    file: Path,
    sets: list[str] | None,
    name: str | None,
    given: list[str] | None,
    output: OutputFormat,
    namespace: str | None,
) -> None:
    """Print all runs of a sweep; one Secret has the values for all of them."""
    secrets_given = [_check_secret_name(secret) for secret in given or ()]
    sweep = sweep_file.read_sweep(file, sets or (), name=name, secret_names=secrets_given)
    platform = platform_cache.load_platform()
    notes = [
        note
        for run in sweep.runs
        for note in load_config.check_with_platform(run.composed, platform)
    ]
    for note in dict.fromkeys(notes):
        terminal.say(f"note: {note}")
    with_secrets = [run for run in sweep.runs if run.composed.config.environment.secrets]
    refs = secrets_given
    if with_secrets:
        config = with_secrets[0].composed.config
        refs = _secret_refs(config, sweep.membership.name, namespace, given)
    manifests = [
        run_spec.run_manifest(run.composed.config, run.name, namespace, refs, sweep.membership)
        for run in sweep.runs
    ]
    if output is OutputFormat.NAME:
        for run in sweep.runs:
            terminal.write(run.name)
    elif output is OutputFormat.JSON:
        terminal.write_data({"apiVersion": "v1", "kind": "List", "items": manifests}, output)
    else:
        for number, manifest in enumerate(manifests):
            if number:
                terminal.write("---")
            terminal.write_data(manifest, OutputFormat.YAML)


def _check_name(text: str) -> str:
    try:
        ref = names.parse_ref(text)
    except ValueError:
        ref = None
    if ref is None or ref.step is not None:
        raise UsageFailure(
            f"{text!r} cannot be the name of a run",
            "use lower-case letters, digits and '-', begin with a letter, and use at most "
            f"{names.RUN_NAME_LIMIT} characters",
        )
    return text


def _check_secret_name(text: str) -> str:
    try:
        return SecretRef(name=text).name
    except ValidationError:
        raise UsageFailure(
            f"{text!r} cannot be the name of a Secret",
            "use lower-case letters, digits, '-' and '.'",
        ) from None


def _secret_refs(
    config: RunConfig, run: str, namespace: str | None, given: list[str] | None
) -> list[str]:
    """Return the names of the Secrets; print how to create the Secret when none was given."""
    listed = config.environment.secrets
    if given or not listed:
        return [_check_secret_name(name) for name in given or ()]
    secret = names.submitted_secret_name(run)
    kubectl = f"kubectl -n {namespace}" if namespace else "kubectl"
    values = " ".join(f'--from-literal={name}="${name}"' for name in listed)
    terminal.say(
        f"note: the run looks up {', '.join(listed)} in Secret {secret}; create it with\n"
        f"  {kubectl} create secret generic {secret} {values}\n"
        f"  {kubectl} label secret {secret} {names.SECRETS_LABEL}=true"
    )
    return [secret]
