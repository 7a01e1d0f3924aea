"""Submit the runs of a sweep; runs that are there already stay as they are."""

from collections.abc import Iterable
from pathlib import Path

from flashrun.api.resource import FlashRun
from flashrun.cli.cluster.connection import ClusterSession, connect
from flashrun.cli.cluster.run_creation import (
    NewRun,
    check_with_cluster,
    create_run,
    find_secret_values,
)
from flashrun.cli.config import load_config, platform_cache
from flashrun.cli.config.planned_sweep import print_planned
from flashrun.cli.config.sweep_file import ComposedSweep
from flashrun.cli.output import terminal
from flashrun.cli.output.failure import Failure
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cluster_errors import AlreadyExists


async def submit_sweep(
    sweep: ComposedSweep,
    folders: Iterable[Path],
    output: OutputFormat,
    namespace: str | None,
    context: str | None,
) -> None:
    """Check all runs of a sweep, then create those that do not exist yet, and print all.

    Raises:
        ConfigError, UsageFailure: the operator would refuse a run; none is created.
        Failure: a run could not be created; the same command continues with it.
    """
    folders = list(folders)
    values = [find_secret_values(run.composed.config, folders) for run in sweep.runs]
    async with connect(context, namespace) as session:
        await _check(session, sweep)
        created = 0
        for run, own_values in zip(sweep.runs, values, strict=True):
            new = NewRun(run.composed, own_values, sweep=sweep.membership)
            try:
                created += await _create(session, run.name, new)
            except Failure as error:
                raise Failure(
                    f"{created} of {len(sweep.runs)} runs were submitted: {error.sentence}",
                    error.hint
                    or "run the same command again: it submits the runs that are missing",
                ) from None
        there = len(sweep.runs) - created
        kept = f"; {there} were there already" if there else ""
        terminal.say(
            f"submitted {created} runs of sweep {session.namespace}/{sweep.membership.name}{kept}; "
            f"flash sweep status {sweep.membership.name} ranks them"
        )
    print_planned(sweep, output)


async def _check(session: ClusterSession, sweep: ComposedSweep) -> None:
    """Check each run with the platform, and what runs share with storage once."""
    looked_up = set()
    platform = await session.get_platform() or platform_cache.load_platform()
    for run in sweep.runs:
        config = run.composed.config
        shared = (config.environment.id, config.model, config.train.init_from_adapter)
        if shared in looked_up:
            load_config.check_with_platform(run.composed, platform)
        else:
            looked_up.add(shared)
            await check_with_cluster(session, run.composed, terminal.note)


async def _create(session: ClusterSession, name: str, new: NewRun) -> bool:
    """Create a run; return False if it exists, as a run of the same sweep."""
    try:
        await create_run(session, name, new)
    except AlreadyExists:
        there = await session.get_run(name)
        _check_same_sweep(there, new)
        return False
    except Failure:
        raise
    except Exception as error:
        raise Failure(str(error)) from error
    return True


def _check_same_sweep(there: FlashRun, new: NewRun) -> None:
    asked = new.sweep
    assert asked is not None
    if there.spec.sweep is None or there.spec.sweep.name != asked.name:
        raise Failure(
            f"run {there.name} exists, and does not belong to sweep {asked.name}",
            "give the sweep another name with --name",
        )
    if there.spec.sweep != asked:
        raise Failure(
            f"run {there.name} exists with another limit or other values of stop_worse, which "
            "cannot change once a run exists",
            "give the sweep another name with --name, or the values that it had",
        )
