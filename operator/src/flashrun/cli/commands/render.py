"""``flash render``: the FlashRun that ``flash train`` would submit, for git and ``kubectl``."""

import secrets
import time
from collections.abc import Sequence
from typing import Annotated

import typer
from pydantic import ValidationError

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.resource import FlashRunSpec, SecretRef, manifest
from flashrun.cli.config import load_config, platform_cache
from flashrun.cli.options import Config, Namespace, Output, Overlays, Sets
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import UsageFailure


def render_manifest(
    config: Config,
    overlays: Overlays = None,
    sets: Sets = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Name of the run; a new one when left out.")
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            "--secret", help="Secret that holds environment.secrets; repeat it.", metavar="NAME"
        ),
    ] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="yaml, json or name.")
    ] = Output.YAML,
    namespace: Namespace = None,
) -> None:
    """Print the FlashRun that train would submit; it holds no secret values.

    Example: flash render config.toml --name sums-1 | kubectl apply -f -
    """
    composed = load_config.read(config, overlays, sets)
    for warning in load_config.checked(composed, platform_cache.platform()):
        terminal.say(f"note: {warning}")
    run = _name(name) if name else names.run_name(int(time.time()), secrets.token_hex(4))
    refs = _secret_refs(composed.config, run, namespace, secret)
    if output is Output.NAME:
        terminal.write(run)
    else:
        terminal.write_data(
            manifest(run, namespace, spec_of(composed.config, refs)),
            Output.JSON if output is Output.JSON else Output.YAML,
        )


def spec_of(config: RunConfig, secret_refs: Sequence[str]) -> FlashRunSpec:
    """Return the spec of ``config`` whose secrets are looked up in ``secret_refs``."""
    return FlashRunSpec.from_config(config, tuple(SecretRef(name=name) for name in secret_refs))


def _name(text: str) -> str:
    try:
        ref = names.parse_ref(text)
    except ValueError:
        ref = None
    if ref is None or ref.step is not None:
        raise UsageFailure(
            f"{text!r} cannot name a run: use lower-case letters, digits and '-', begin with a "
            f"letter, and at most {names.RUN_NAME_LIMIT} characters"
        )
    return text


def _secret_name(text: str) -> str:
    try:
        return SecretRef(name=text).name
    except ValidationError:
        raise UsageFailure(
            f"{text!r} cannot name a Secret: use lower-case letters, digits, '-' and '.'"
        ) from None


def _secret_refs(
    config: RunConfig, run: str, namespace: str | None, given: list[str] | None
) -> list[str]:
    """Return where the secrets are looked up; say how to make that Secret when it is new."""
    listed = config.environment.secrets
    if given or not listed:
        return [_secret_name(name) for name in given or ()]
    secret = names.submitted_secret_name(run)
    kubectl = f"kubectl -n {namespace}" if namespace else "kubectl"
    values = " ".join(f'--from-literal={name}="${name}"' for name in listed)
    terminal.say(
        f"note: the run looks up {', '.join(listed)} in Secret {secret}; make it with\n"
        f"  {kubectl} create secret generic {secret} {values}\n"
        f"  {kubectl} label secret {secret} {names.SECRETS_LABEL}=true"
    )
    return [secret]
