"""An HTTP session with which kopf gets only the metadata of what it lists and watches.

The watches need names and labels. A whole object has up to 1.5 MB, most of which its writer
chooses, and becomes twenty times as large in memory.
"""

from types import SimpleNamespace
from typing import Any, Final

import aiohttp
import kopf
from multidict import CIMultiDict, CIMultiDictProxy

from flashrun.cluster_requests import bounded_retry_after

_METADATA: Final = "application/json;g=meta.k8s.io;v=v1;as=PartialObjectMetadata"


class _Answer(aiohttp.ClientResponse):
    """An answer that kopf can take as it is.

    An empty list is a list: in one of metadata, the API server has null. What asks kopf to wait is
    bounded: it waits as long as it is asked to, and fails at a date.
    """

    @property
    def headers(self) -> CIMultiDictProxy[str]:
        """The headers, with a pause within bounds."""
        headers = CIMultiDict(super().headers)
        if "Retry-After" in headers:
            headers["Retry-After"] = str(bounded_retry_after(headers["Retry-After"]))
        return CIMultiDictProxy(headers)

    async def json(self, **options: Any) -> Any:
        """Return the JSON value of the body."""
        answer = await super().json(**options)
        if isinstance(answer, dict) and "items" in answer:
            answer["items"] = answer["items"] or []
        if isinstance(answer, dict) and isinstance(details := answer.get("details"), dict):
            pause = bounded_retry_after(str(details.get("retryAfterSeconds", "")))
            answer["details"] = {**details, "retryAfterSeconds": pause}
        return answer


def metadata_session(
    connection: kopf.ConnectionInfo, plurals: frozenset[str]
) -> kopf.AiohttpSession:
    """Return a session with the address and the credentials of ``connection``.

    ``plurals`` are the resources of whose objects only metadata are wanted. It is called in the
    event loop that uses the session.
    """

    async def ask_for_metadata(
        _: aiohttp.ClientSession, __: SimpleNamespace, request: aiohttp.TraceRequestStartParams
    ) -> None:
        if request.url.name in plurals:
            watch = "watch" in request.url.query
            request.headers["Accept"] = _METADATA if watch else f"{_METADATA}List"

    tracing = aiohttp.TraceConfig()
    tracing.on_request_start.append(ask_for_metadata)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=connection.as_ssl_context()),
        headers=connection.as_http_headers(),
        proxy=connection.proxy_url,
        trust_env=connection.trust_env,
        trace_configs=[tracing],
        response_class=_Answer,
    )
    return kopf.AiohttpSession(server=connection.server, aiohttp_session=session)
