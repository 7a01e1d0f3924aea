"""Pages of a listing in S3, read as they arrive.

Writers choose the keys: each has up to 1,024 bytes, and three times as many in percent-encoding. So
no page is held as text or as a tree.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, NamedTuple, cast
from urllib.parse import unquote_plus
from xml.etree import ElementTree

from flashrun.api.times import parse_time

PAGE_KEYS: Final = 200
"""So few that a page of the longest keys takes less than 1 MiB, whoever wrote them."""


class Entry(NamedTuple):
    """One key of a listing. A folder in a shallow listing ends in ``/`` and has no etag."""

    key: str
    size: int
    etag: str
    modified: datetime | None


class ListingPage(NamedTuple):
    """Some keys, and where the next page begins."""

    entries: list[Entry]
    following: dict[str, str]
    """Parameters of the request for the next page; empty: this is the last one."""


def request_parameters(prefix: str, recursive: bool, following: dict[str, str]) -> dict[str, str]:
    """Return the parameters of a request for one page (ListObjectsV2)."""
    return {
        "list-type": "2",
        "prefix": prefix,
        "delimiter": "" if recursive else "/",
        "max-keys": str(PAGE_KEYS),
        "encoding-type": "url",
        **following,
    }


def parse_page(chunks: Iterable[bytes]) -> ListingPage:
    """Return the page in the body of an answer.

    Raises:
        ElementTree.ParseError, ValueError, LookupError: it is not one.
    """
    parser: ElementTree.XMLPullParser[ElementTree.Element] = ElementTree.XMLPullParser(
        ("start", "end")
    )
    ancestors: list[ElementTree.Element] = []
    entries: list[Entry] = []
    values: dict[str, str] = {}
    for event, element in _events(parser, chunks):
        if event == "start":
            ancestors.append(element)
            continue
        ancestors.pop()
        if len(ancestors) != 1:
            continue
        match _name(element):
            case "Contents":
                entries.append(_entry(element))
            case "CommonPrefixes":
                entries.append(Entry(_texts(element)["Prefix"], 0, "", None))
            case name:
                values[name] = element.text or ""
        ancestors[0].clear()
    if values.get("EncodingType") == "url":
        for index, entry in enumerate(entries):
            entries[index] = entry._replace(key=unquote_plus(entry.key))
    return ListingPage(entries, _following(entries, values))


def _events(
    parser: "ElementTree.XMLPullParser[ElementTree.Element]", chunks: Iterable[bytes]
) -> Iterator[tuple[str, ElementTree.Element]]:
    for chunk in chunks:
        parser.feed(chunk)
        yield from cast("Iterator[tuple[str, ElementTree.Element]]", parser.read_events())
    parser.close()


def _following(entries: list[Entry], values: dict[str, str]) -> dict[str, str]:
    if values["IsTruncated"].lower() != "true":
        return {}
    if token := values.get("NextContinuationToken"):
        return {"continuation-token": token}
    return {"start-after": entries[-1].key}


def _entry(element: ElementTree.Element) -> Entry:
    texts = _texts(element)
    key, modified = texts["Key"], texts.get("LastModified")
    etag = "" if key.endswith("/") else texts.get("ETag", "").strip('"')
    return Entry(key, int(texts.get("Size") or 0), etag, parse_time(modified) if modified else None)


def _texts(element: ElementTree.Element) -> dict[str, str]:
    return {_name(child): child.text or "" for child in element}


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
