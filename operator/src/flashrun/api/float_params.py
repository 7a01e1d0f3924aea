"""Which numbers in ``environment.params`` are floats: the API server keeps 2.0 as 2.

The places are JSON pointers, https://www.rfc-editor.org/rfc/rfc6901.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping
from typing import Any


def whole_floats(params: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the places of all floats that are whole numbers."""
    return tuple(_places(params, ""))


def with_floats(params: Mapping[str, Any], places: Iterable[str]) -> dict[str, Any]:
    """Return ``params`` with floats at ``places``; a place without an integer is passed over."""
    result = dict(params)
    own = {id(result)}
    for place in places:
        *path, last = (_unescaped(part) for part in place.split("/")[1:] or [""])
        node: Any = result
        for part in path:
            node = _own_child(node, part, own)
        value = _child(node, last)
        if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**1023:
            node[_key(node, last)] = float(value)
    return result


def _places(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _places(item, f"{place}/{key.replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _places(item, f"{place}/{index}")
    elif isinstance(value, float) and value.is_integer():
        yield place


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _key(node: Any, part: str) -> Any:
    return int(part) if isinstance(node, list) else part


def _child(node: Any, part: str) -> Any:
    if isinstance(node, dict):
        return node.get(part)
    if isinstance(node, list) and part.isascii() and part.isdecimal() and len(part) < 6:
        return node[int(part)] if int(part) < len(node) else None
    return None


def _own_child(node: Any, part: str, own: set[int]) -> Any:
    """Return a child that may be changed: a copy in its place, made once."""
    child = _child(node, part)
    if isinstance(child, dict | list) and id(child) not in own:
        child = copy.copy(child)
        own.add(id(child))
        node[_key(node, part)] = child
    return child
