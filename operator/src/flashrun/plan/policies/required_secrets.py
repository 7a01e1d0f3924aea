"""Required secrets: a run waits until every secret that it lists has a value."""

from flashrun.api import names
from flashrun.api.reasons import ConditionType, Reason
from flashrun.plan.decisions import wait
from flashrun.plan.run_context import RunContext
from flashrun.plan.types import Decision


def wait_for_secrets(context: RunContext) -> Decision | None:
    """Wait while a secret that the spec lists has no value, and say where it was looked up."""
    if context.observed.has_secrets:
        return None
    lookup, listed = context.observed.secrets, context.run.spec.environment.secrets
    missing = [name for name in listed if name not in lookup.sources]
    if not missing:
        return None
    message = f"No value for {', '.join(missing)} in {_searched_secrets(context)}."
    if lookup.absent:
        message += f" Secret {', '.join(lookup.absent)} does not exist."
    if lookup.unlabelled:
        message += (
            f" Secret {', '.join(lookup.unlabelled)} is not for runs: label it "
            f'{names.SECRETS_LABEL}: "true".'
        )
    return wait(context, Reason.SECRET_MISSING, message, ConditionType.SECRETS_READY)


def _searched_secrets(context: RunContext) -> str:
    listed = ", ".join(ref.name for ref in context.run.spec.secret_refs)
    return f"the Secrets of spec.secretRefs ({listed})" if listed else "spec.secretRefs (empty)"
