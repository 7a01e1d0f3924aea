"""``flash model list``: list the models in the platform's mirror."""

import asyncio
from datetime import UTC, datetime
from typing import Any, NamedTuple

from flashrun.api.public import PublicPlatform
from flashrun.cli.cluster import mirror
from flashrun.cli.cluster.connection import connect
from flashrun.cli.cluster.mirror import MirroredModel
from flashrun.cli.options import Context, Namespace, Output
from flashrun.cli.output import formatting, terminal
from flashrun.cli.output.output_format import OutputFormat
from flashrun.cli.output.tables import Cell, Table, Tone
from flashrun.plan.mirrored_models import choose_revision


def list_mirror(
    output: Output = OutputFormat.TABLE, namespace: Namespace = None, context: Context = None
) -> None:
    """List the models in the platform's mirror.

    The column SERVED says whether runs can use a revision: the platform's catalog names it, or the
    platform serves its mirror, and it is the newest one. Reasons why not are written below.

    Example: flash model list
    """
    found, served = asyncio.run(_list(namespace, context))
    terminal.write_answer(
        output,
        data=[_data(model, served) for model in found],
        names=[f"{model.model}@{model.revision}" for model in found],
        table=_table(found, served, datetime.now(UTC)),
    )
    for model in found:
        if _key(model) not in served.revisions and (reason := served.refusal(model)):
            terminal.say(f"note: {model.model}@{model.revision} is not served: {reason}")


class _Served(NamedTuple):
    """What runs can use of the mirror."""

    revisions: set[tuple[str, str]]
    """Ids and revisions."""
    platform: PublicPlatform

    def refusal(self, model: MirroredModel) -> str:
        """Return why a model that needs no entry cannot be used, or an empty string."""
        if model.verdict is None or self.platform.needs_entry(model.model):
            return ""
        return model.verdict.answer.refused


async def _list(namespace: str | None, context: str | None) -> tuple[list[MirroredModel], _Served]:
    """Return the models, and which of them runs can use."""
    async with connect(context, namespace) as session:
        platform = await session.get_platform() or PublicPlatform()
        found = await session.with_mirror(mirror.list_models)
    served = {(model.id, model.revision) for model in platform.catalog()}
    for model_id in {model.model for model in found}:
        if platform.needs_entry(model_id):
            continue
        # The published catalog may be a minute old.
        served = {key for key in served if key[0] != model_id}
        verdicts = [m.verdict for m in found if m.model == model_id and m.verdict is not None]
        chosen = choose_revision(verdicts)
        if chosen is not None and chosen.model is not None:
            served.add((model_id, chosen.model.revision))
    return found, _Served(served, platform)


def _key(model: MirroredModel) -> tuple[str, str]:
    return model.model, model.revision


def _data(model: MirroredModel, served: _Served) -> dict[str, Any]:
    return {
        "id": model.model,
        "revision": model.revision,
        "bytes": model.size,
        "complete": model.manifest is not None,
        "pushed": model.manifest and model.manifest.created.isoformat(),
        "served": _key(model) in served.revisions,
        "refused": served.refusal(model) or None,
    }


def _table(found: list[MirroredModel], served: _Served, now: datetime) -> Table:
    rows = (
        (
            Cell(model.model),
            Cell(model.revision),
            Cell(formatting.format_size(model.size)),
            Cell(formatting.format_age(model.manifest.created, now))
            if model.manifest
            else Cell("not complete", Tone.BAD),
            Cell("yes" if _key(model) in served.revisions else "no"),
        )
        for model in found
    )
    return Table(("MODEL", "REVISION", "SIZE", "AGE", "SERVED"), tuple(rows))
