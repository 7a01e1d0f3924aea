"""Save request: ``spec.control.saveRequest`` is handed to the trainer, once."""

from dataclasses import replace

from flashrun.api.records import TrainerControl
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def pass_on_save_request(context: RunContext, decision: Decision) -> Decision:
    """Add the record by which the trainer learns of a save request that it has not got yet."""
    request = context.run.spec.control.save_request
    current = context.observed.storage.control or TrainerControl()
    new = request and request != current.save_request and not context.observed.storage.problem
    return replace(decision, control=TrainerControl(save_request=request) if new else None)
