"""Sends traces of runs to an OpenTelemetry collector, by OTLP over HTTP.

The libraries are loaded here and nowhere else, and this module only where an endpoint is set. They
collect spans in a bounded queue and send them in a thread of their own; what a collector does not
take within their time limit is dropped and logged.
"""

from datetime import datetime
from typing import Final

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import StatusCode, set_span_in_context
from opentelemetry.util.types import AttributeValue
from typing_extensions import override

import flashrun
from flashrun.plan.run_start import RunStart, StageSpan
from flashrun.proxies import Proxy, storage_proxy

SERVICE: Final = "flashrun-operator"
_TIMEOUT_SECONDS: Final = 10.0


class _GivenIds(IdGenerator):
    """The ids that were set for the next span."""

    trace_id = span_id = 0

    @override
    def generate_trace_id(self) -> int:
        return self.trace_id

    @override
    def generate_span_id(self) -> int:
        return self.span_id


class TraceSender:
    """Sends traces to one endpoint; one thread calls it."""

    def __init__(self, endpoint: str) -> None:
        """``endpoint`` is the base of OTLP over HTTP, as in ``http://collector:4318``.

        The exporter reads headers and certificates from the variables of OpenTelemetry.
        """
        exporter = OTLPSpanExporter(
            endpoint=f"{endpoint.rstrip('/')}/v1/traces",
            timeout=_TIMEOUT_SECONDS,
            session=_session(endpoint),
        )
        self._ids = _GivenIds()
        self._provider = TracerProvider(
            sampler=ALWAYS_ON,
            resource=Resource.create(
                {"service.name": SERVICE, "service.version": flashrun.__version__}
            ),
            id_generator=self._ids,
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("flashrun", flashrun.__version__)

    def send(self, start: RunStart) -> None:
        """Queue the spans of a start; returns at once."""
        self._ids.trace_id = int(start.trace_id, 16)
        self._ids.span_id = int(start.span_id(0), 16)
        attributes: dict[str, AttributeValue] = {
            "k8s.namespace.name": start.namespace,
            "flashrun.run.name": start.name,
            "flashrun.run.uid": start.uid,
            "flashrun.run.model": start.model,
            "flashrun.run.phase": str(start.phase),
        }
        whole = self._tracer.start_span(
            "submit to first step", attributes=attributes, start_time=_nanoseconds(start.begin)
        )
        if start.reason:
            whole.set_status(StatusCode.ERROR, start.reason)
        context = set_span_in_context(whole)
        for number, span in enumerate(start.spans, 1):
            self._ids.span_id = int(start.span_id(number), 16)
            part = self._tracer.start_span(
                str(span.stage), context=context, start_time=_nanoseconds(span.begin)
            )
            if span.reason:
                part.set_status(StatusCode.ERROR, span.reason)
            part.end(_nanoseconds(_end(span)))
        whole.end(_nanoseconds(start.end))

    def flush(self) -> None:
        """Send what is queued; it waits for the collector, which may never answer."""
        self._provider.force_flush()


def _session(endpoint: str) -> requests.Session:
    """Return a session that goes through a proxy where the operator does so for storage."""
    session = requests.Session()
    session.trust_env = False
    proxy = storage_proxy(endpoint)
    if proxy is not None:
        session.proxies = dict.fromkeys(("http", "https"), _with_user(proxy))
    return session


def _with_user(proxy: Proxy) -> str:
    scheme, separator, place = proxy.address.partition("://")
    return f"{scheme}{separator}{proxy.user}@{place}" if proxy.user else proxy.address


def _end(span: StageSpan) -> datetime:
    return max(span.begin, span.end)


def _nanoseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000) * 1_000
