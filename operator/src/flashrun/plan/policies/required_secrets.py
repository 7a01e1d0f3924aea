"""Required secrets: a run starts when every secret that it lists has a value."""

from flashrun.api.reasons import ConditionType, Reason
from flashrun.plan.decisions import wait
from flashrun.plan.observed_conditions import missing_values
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def wait_for_secrets(context: RunContext) -> Decision | None:
    """Wait while a secret that the spec lists has no value, and say where it was looked up.

    A run that has a Job goes on: its pods have what they need, or say what they wait for.
    """
    message = missing_values(context.run, context.observed)
    if context.job is not None or not message:
        return None
    return wait(context, Reason.SECRET_MISSING, message, ConditionType.SECRETS_READY)
