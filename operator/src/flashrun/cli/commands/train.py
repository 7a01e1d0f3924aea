"""``flash train``: check a config here, submit it, follow the run."""

from flashrun.cli.config import load_config, platform_cache
from flashrun.cli.config.dry_run import DryRunAnswers, print_dry_run, refuse_name
from flashrun.cli.options import (
    Background,
    Config,
    Context,
    DryRun,
    Logs,
    Namespace,
    Output,
    Overlays,
    Server,
    Sets,
)
from flashrun.cli.output.failure import UsageFailure
from flashrun.cli.output.output_format import OutputFormat


def train(
    config: Config,
    overlays: Overlays = None,
    sets: Sets = None,
    dry_run: DryRun = False,
    server: Server = False,
    background: Background = False,
    logs: Logs = False,
    output: Output = OutputFormat.TABLE,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Train the adapter that a config describes.

    The config is composed of CONFIG, each --config file and each --set, in this order, and checked
    as a whole. --dry-run needs no cluster; with --server it also prints what only the cluster
    knows: admission, pool, quota, environment, adapter, storage. A terminal shows the run live,
    with curves of its metrics; --logs prints its log instead. Ctrl-C leaves the run running.

    Example: flash train config.toml --set train.steps=300 --set train.lora_rank=16
    """
    if server and not dry_run:
        raise UsageFailure("--server works only with --dry-run", "leave it out to train")
    composed = load_config.read_config(config, overlays, sets)
    if dry_run:
        refuse_name(output)
    if dry_run and not server:
        notes = load_config.check_with_platform(composed, platform_cache.load_platform())
        print_dry_run(composed, DryRunAnswers(notes=[*notes]), output)
        return
    # Imported late: importing what talks to a cluster takes longer than an offline dry run.
    from flashrun.cli.cluster import preflight, run_creation, submit
    from flashrun.cli.output.run_view import view_kind

    folders = [config.resolve().parent]
    if dry_run:
        answers = preflight.ask_cluster(composed, folders, namespace, context)
        print_dry_run(composed, answers, output)
        return
    values = run_creation.find_secret_values(composed.config, folders)
    new = run_creation.NewRun(composed, values)
    submission = submit.Submission(new, background, output, view_kind(logs))
    submit.connect_and_submit(submission, namespace, context)
