"""Whose environments are whose: the namespaces that may push, delete and use those of an org.

The part of an environment's id before the slash is its org. An org belongs to the namespace of its
own name, unless the platform binds it to others (``environments.owners``).
"""

from collections.abc import Mapping

Owners = Mapping[str, tuple[str, ...]]
"""Org → the namespaces that it is bound to."""


def owned_orgs(namespace: str, owners: Owners) -> tuple[str, ...]:
    """Return the orgs of a namespace, its own name first."""
    bound = sorted(org for org, namespaces in owners.items() if namespace in namespaces)
    own = (namespace,) if namespace in owners.get(namespace, (namespace,)) else ()
    return (*own, *(org for org in bound if org != namespace))


def foreign_environment(identifier: str, namespace: str, orgs: tuple[str, ...]) -> str:
    """Return why a namespace with these ``orgs`` may not have an environment, or nothing.

    The sentence says what to do.
    """
    org, _, name = identifier.partition("/")
    if org in orgs:
        return ""
    own = f"its orgs are {', '.join(orgs)}" if orgs else "it has no orgs"
    other = f"use {orgs[0]}/{name}, or " if orgs else ""
    return (
        f"Environment {identifier} does not belong to namespace {namespace}: {own}; {other}ask the "
        f"platform's administrator to bind org {org} to {namespace} (environments.owners)."
    )
