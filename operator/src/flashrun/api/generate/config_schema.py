"""The models → the JSON Schema of the TOML, for editors that complete and check it.

pydantic's schema is of the models; TOML differs in three ways. It has no null, so the null of an
optional key goes away. One stop sequence may stand without its list. And names have a form that the
models check in code, with better sentences than a pattern gives.
"""

from typing import Any, Final

from flashrun.api.config import ENVIRONMENT_ID, SPLIT, VARIABLE, RunConfig

Schema = dict[str, Any]

_VARIABLE: Final = {"pattern": f"^{VARIABLE.pattern}$"}


def toml_schema() -> Schema:
    """Return the JSON Schema of a run's config in its TOML spelling."""
    document: Schema = _plain(RunConfig.model_json_schema(by_alias=False))
    environment = document["$defs"]["EnvironmentConfig"]["properties"]
    environment["id"]["pattern"] = rf"^\s*{ENVIRONMENT_ID.pattern}\s*$"
    document["$defs"]["EvalConfig"]["properties"]["split"]["pattern"] = rf"^\s*{SPLIT.pattern}\s*$"
    environment["secrets"]["items"] |= _VARIABLE
    document["properties"]["worker_env"]["propertyNames"] = _VARIABLE
    _or_one(document["$defs"]["TrainConfig"]["properties"]["stop_sequences"])
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **document,
        "title": "FlashRun config",
    }


def _plain(node: Any) -> Any:
    """Return ``node`` without null, without pydantic's titles, and with descriptions as text."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {
        key: _plain(value)
        for key, value in node.items()
        if not (key == "title" and isinstance(value, str)) and not _no_default(key, value)
    }
    if isinstance(kept.get("description"), str):
        kept["description"] = " ".join(kept["description"].split()).replace("``", "")
    if "anyOf" in kept:
        [option] = [option for option in kept.pop("anyOf") if option != {"type": "null"}]
        kept = {**option, **kept}
    return kept


def _no_default(key: str, value: Any) -> bool:
    """Say whether this is the default of an optional key, or of a table of such keys."""
    return key == "default" and (
        value is None or (isinstance(value, dict) and None in value.values())
    )


def _or_one(listed: Schema) -> None:
    """Let a single item stand for a list of one."""
    several = {key: listed.pop(key) for key in ("type", "items", "maxItems")}
    listed["anyOf"] = [several["items"], several]
