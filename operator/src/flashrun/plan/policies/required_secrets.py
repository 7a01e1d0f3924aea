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
    message = f"No value for {', '.join(missing)} in {_where_to_add(context)}."
    if lookup.absent:
        message += f" Secret {', '.join(lookup.absent)} does not exist."
    if lookup.unlabelled:
        message += (
            f" Secret {', '.join(lookup.unlabelled)} is not labelled for runs: label it "
            f'{names.SECRETS_LABEL}: "true".'
        )
    return wait(context, Reason.SECRET_MISSING, message, ConditionType.SECRETS_READY)


def _where_to_add(context: RunContext) -> str:
    """Return the Secrets that were searched, and what to do."""
    listed = ", ".join(ref.name for ref in context.run.spec.secret_refs)
    if not listed:
        return "spec.secretRefs (empty): add a Secret that has it"
    return f"the Secrets of spec.secretRefs ({listed}): add it to one of them"
