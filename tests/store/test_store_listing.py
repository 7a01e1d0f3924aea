"""Pages of a listing: what is in them, in any chunks, and how little memory they take."""

import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest

from flashrun.store_listing import (
    PAGE_KEYS,
    Entry,
    ListingPage,
    parse_page,
    request_parameters,
)

MODIFIED = datetime(2026, 1, 2, tzinfo=UTC)


def contents(key: str, size: int = 1, owner: str = "") -> str:
    return (
        f"<Contents><Key>{key}</Key><LastModified>2026-01-02T00:00:00.000Z</LastModified>"
        f"<ETag>&quot;e&quot;</ETag><Size>{size}</Size>{owner}</Contents>"
    )


def document(*parts: str, truncated: bool = False) -> bytes:
    text = "".join(parts)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>'
        f"<IsTruncated>{str(truncated).lower()}</IsTruncated>{text}</ListBucketResult>"
    ).encode()


URL = "<EncodingType>url</EncodingType>"
PAGES: dict[str, tuple[bytes, list[str], dict[str, str]]] = {
    "empty": (document(), [], {}),
    "keys": (document(contents("p/a"), contents("p/b")), ["p/a", "p/b"], {}),
    "folders": (
        document(contents("a"), "<CommonPrefixes><Prefix>b/</Prefix></CommonPrefixes>"),
        ["a", "b/"],
        {},
    ),
    "percent-encoding that is announced at the end": (
        document(contents("a+b%2Bc%0A"), URL),
        ["a b+c\n"],
        {},
    ),
    "keys as they are": (document(contents("a+b%2B")), ["a+b%2B"], {}),
    "with owners": (
        document(contents("a", owner="<Owner><ID>Key</ID><Key>x</Key></Owner>")),
        ["a"],
        {},
    ),
    "more follow": (
        document(
            contents("a"),
            "<NextContinuationToken>a%2B</NextContinuationToken>",
            URL,
            truncated=True,
        ),
        ["a"],
        {"continuation-token": "a%2B"},
    ),
    "more follow, without a token": (
        document(contents("a%2B"), URL, truncated=True),
        ["a+"],
        {"start-after": "a+"},
    ),
}


@pytest.mark.parametrize("size", [1, 7, 10_000])
@pytest.mark.parametrize("case", PAGES)
def test_a_page_is_read_in_chunks_of_any_size(case: str, size: int) -> None:
    body, keys, following = PAGES[case]
    page = parse_page(body[start : start + size] for start in range(0, len(body), size))
    assert ([entry.key for entry in page.entries], page.following) == (keys, following)


def test_an_entry_has_size_time_and_an_etag_without_quotation_marks() -> None:
    page = parse_page([document(contents("a", 7), contents("folder/", 0))])
    assert page == ListingPage(
        [Entry("a", 7, "e", MODIFIED), Entry("folder/", 0, "", MODIFIED)], {}
    )


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"no XML",
        document()[:-5],
        b"<ListBucketResult></ListBucketResult>",
        document(truncated=True),
        document("<Contents><Size>1</Size></Contents>"),
        document(contents("a").replace(">1<", ">one<")),
    ],
)
def test_what_is_not_a_page_is_refused(body: bytes) -> None:
    with pytest.raises((ElementTree.ParseError, ValueError, LookupError)):
        parse_page([body])


def test_the_next_page_is_asked_for_by_its_token() -> None:
    asked = request_parameters("p/", False, {"continuation-token": "t"})
    assert asked == {
        "list-type": "2", "prefix": "p/", "delimiter": "/", "max-keys": "200",
        "encoding-type": "url", "continuation-token": "t",
    }  # fmt: skip


def test_a_page_with_the_longest_keys_takes_little_memory() -> None:
    def chunks() -> Iterator[bytes]:
        start, end = document(URL, "|").split(b"|")
        yield start
        for number in range(PAGE_KEYS):
            yield contents(f"{number:04}" + "%25" * 1020).encode()
        yield end

    tracemalloc.start()
    try:
        page = parse_page(chunks())
        retained, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(page.entries) == PAGE_KEYS
    assert {len(entry.key) for entry in page.entries} == {1024}
    assert retained < 2**20 / 2
    assert peak < 2**20
