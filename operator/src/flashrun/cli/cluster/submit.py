"""From a composed config to a run in the cluster, followed to its end; for train and rerun."""

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flashrun.api import names
from flashrun.api.config import RunConfig
from flashrun.api.resource import FlashRun
from flashrun.api.sweep import SweepMembership
from flashrun.cli.cluster import adapters, follow, published_environments
from flashrun.cli.cluster.connection import ClusterSession, connect, parse_run
from flashrun.cli.config import dotenv, load_config, platform_cache
from flashrun.cli.config.compose import ComposedConfig
from flashrun.cli.config.run_spec import run_manifest
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure, UsageFailure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.run_summary import print_run
from flashrun.cli.output.run_view import ViewKind
from flashrun.cli.output.tables import Tone
from flashrun.cluster_errors import ClusterError

SUMMARY_SECONDS: Final = 5.0
"""How long the summary of a run waits for the end of its last attempt."""


@dataclass(frozen=True)
class Submission:
    """A config to submit, the values of its secrets, and what is printed about the run."""

    composed: ComposedConfig
    secret_values: Mapping[str, str]
    background: bool
    output: OutputFormat
    view: ViewKind = ViewKind.SCREEN
    given_secrets: tuple[str, ...] = ()
    """Names of Secrets that exist already; looked up after the Secret of this run."""
    sweep: SweepMembership | None = None
    """The sweep that the run belongs to, if it does."""


def find_secret_values(
    config: RunConfig, folders: Iterable[Path] = (), *, may_be_missing: bool = False
) -> dict[str, str]:
    """Return the values of ``environment.secrets``, and the W&B key if there is one.

    They come from the shell and from ``.env`` files here and in ``folders``. ``may_be_missing`` is
    for runs that also look up Secrets that exist already.

    Raises:
        UsageFailure: with every name that has no value.
    """
    listed = config.environment.secrets
    values = dotenv.find_values((*listed, names.WANDB_API_KEY), folders)
    missing = [name for name in listed if name not in values]
    if missing and not may_be_missing:
        raise UsageFailure(
            f"environment.secrets names {', '.join(missing)}, but no value is set; nothing is sent",
            f"set each in your shell, or in {' or '.join(dotenv.FILES)} here or beside the config",
        )
    return values


def connect_and_submit(submission: Submission, namespace: str | None, context: str | None) -> None:
    """Connect to the cluster, then do as ``submit_and_follow``."""

    async def run() -> None:
        async with connect(context, namespace) as session:
            await submit_and_follow(session, submission)

    asyncio.run(run())


async def submit_and_follow(session: ClusterSession, submission: Submission) -> None:
    """Check a config with the cluster, create its run, and follow it unless in the background."""
    await check_with_cluster(session, submission.composed)
    name = names.run_name(int(time.time()), secrets.token_hex(4))
    run = await create_run(session, name, submission)
    terminal.say(f"submitted {run.namespace}/{name}")
    if submission.background:
        _print_submitted(await session.get_manifest(name), submission.output)
        return
    answered = await follow.follow_or_detach(session, name, submission.output, submission.view)
    manifest = await follow.settled_manifest(session, name, 0 if answered else SUMMARY_SECONDS)
    finished = parse_run(manifest)
    if not answered:
        print_run(finished, manifest, submission.output)
    follow.report_outcome(finished, printed=answered)


def _print_submitted(manifest: dict[str, Any], output: OutputFormat) -> None:
    if output in (OutputFormat.JSON, OutputFormat.YAML):
        terminal.write_data(manifest, output)
    else:
        terminal.write(manifest["metadata"]["name"])


async def check_with_cluster(session: ClusterSession, composed: ComposedConfig) -> None:
    """Check a config against the platform and its storage, as far as they can be read from here.

    Raises:
        ConfigError, UsageFailure: the operator would refuse the run.
    """
    await session.refuse_unserved_namespace()
    platform = await session.get_platform() or platform_cache.load_platform()
    for note in load_config.check_with_platform(composed, platform):
        terminal.say(f"note: {note}")
    environment = composed.config.environment.id
    await published_environments.check_owner(session, environment)
    key = names.environment_latest_key(environment)
    try:
        published = await session.with_store(lambda store: store.exists(key))
        start = await adapters.find_warm_start(session, composed.config)
    except Exception as error:
        # Not fatal: the operator checks storage again, and its answer decides.
        terminal.say(f"note: storage was not checked from here: {error}", Tone.QUIET)
        return
    if not published:
        raise UsageFailure(
            f"environment {environment} has not been pushed to this platform",
            f"push its folder: flash env push FOLDER --name {environment}",
        )
    if start.problem is not None:
        raise UsageFailure(str(start.problem))


async def create_run(session: ClusterSession, name: str, submission: Submission) -> FlashRun:
    """Create the run, then the Secret with the submitter's values, which the run owns.

    In this order a crash in between leaves no values behind.
    """
    values = submission.secret_values
    own = (names.submitted_secret_name(name),) if values else ()
    manifest = run_manifest(
        submission.composed.config,
        name,
        session.namespace,
        (*own, *submission.given_secrets),
        submission.sweep,
    )
    with contextlib.suppress(ClusterError):  # it only says in flash cost whose run it was
        manifest["metadata"]["annotations"] = {
            names.USER_ANNOTATION: await session.cluster.user_name()
        }
    created = await session.cluster.create(manifest, names.CLI_FIELD_MANAGER, strict=True)
    run = FlashRun.from_manifest(created)
    if values:
        try:
            await session.cluster.create_secret(
                secret_metadata(run), values, names.CLI_FIELD_MANAGER
            )
        except (Exception, asyncio.CancelledError) as error:
            # Without its Secret the run would wait for ever.
            await session.cluster.delete(names.KIND, run.namespace, name, uid=run.uid)
            if isinstance(error, asyncio.CancelledError):
                raise
            raise Failure(f"the run was deleted, as its Secret was refused: {error}") from None
    return run


def secret_metadata(run: FlashRun) -> dict[str, Any]:
    """Return the metadata of the Secret with the submitter's values; it is deleted with its run."""
    return {
        "name": names.submitted_secret_name(run.name),
        "namespace": run.namespace,
        "labels": {
            names.SECRETS_LABEL: "true",
            names.RUN_LABEL: run.name,
            names.RUN_UID_LABEL: run.uid,
        },
        "ownerReferences": [
            {
                "apiVersion": names.API_VERSION,
                "kind": names.KIND,
                "name": run.name,
                "uid": run.uid,
            }
        ],
    }
