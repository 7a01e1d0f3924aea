"""Write values as TOML."""

import json
from datetime import date, time
from typing import Any


def toml_value(value: Any) -> str:
    """Return ``value`` as one line of TOML."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            pairs = (f"{toml_key(key)} = {toml_value(item)}" for key, item in value.items())
            return f"{{{', '.join(pairs)}}}"
        case list() | tuple():
            return f"[{', '.join(map(toml_value, value))}]"
        case date() | time():
            return value.isoformat()
        case _:
            return repr(value)


def toml_key(key: str) -> str:
    """Return ``key`` as TOML, quoted when it has to be."""
    bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if bare else toml_value(key)
