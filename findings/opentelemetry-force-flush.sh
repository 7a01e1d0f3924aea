#!/usr/bin/env bash
# What it shows: TracerProvider.force_flush(timeout_millis) is documented to wait so long at most, and to
#   return False when the time is over. With the usual BatchSpanProcessor it waits until the exporter
#   returns, however long that takes, and answers True, also when the exporter says that it has failed.
#   The same processor behind ConcurrentMultiSpanProcessor keeps the limit.
# Why it matters: a program that flushes its traces before it ends, within the time that a pod has for
#   its end, is killed while it waits for a collector that does not answer, or believes that its
#   traces have arrived.
# Versions: opentelemetry-sdk 1.45.2, Python 3.11.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" opentelemetry-sdk==1.45.2

cat >"$folder/show.py" <<'PYTHON'
"""Flush one span within 0.1 s, through an exporter that takes 2 s and fails."""
import importlib.metadata
import sys
import time

from opentelemetry.sdk.trace import ConcurrentMultiSpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult


class SlowCollector(SpanExporter):
    def export(self, spans):
        time.sleep(2)
        return SpanExportResult.FAILURE

    def shutdown(self):
        pass


def flush(provider: TracerProvider) -> tuple[bool, float]:
    """Return what force_flush answers, and after how many seconds."""
    provider.add_span_processor(BatchSpanProcessor(SlowCollector()))
    provider.get_tracer("example").start_span("work").end()
    began = time.monotonic()
    answer = provider.force_flush(timeout_millis=100)
    return answer, time.monotonic() - began


print("opentelemetry-sdk", importlib.metadata.version("opentelemetry-sdk"))
concurrent = ConcurrentMultiSpanProcessor(1)
answers = {
    "one processor after the other (the default)": flush(TracerProvider(shutdown_on_exit=False)),
    "ConcurrentMultiSpanProcessor": flush(
        TracerProvider(active_span_processor=concurrent, shutdown_on_exit=False)
    ),
}
for name, (answer, seconds) in answers.items():
    print(f"{name}: force_flush(timeout_millis=100) answers {answer} after {seconds:.1f} s")
(default, waited), (other, kept) = answers.values()
if other is not False or kept > 1:
    sys.exit("changed: the concurrent processor does not keep the limit any more")
if default is not True or waited < 1.9:
    sys.exit("changed: force_flush obeys its limit, or says that the spans have not arrived")
print("as described: the limit is ignored, and the failure is not said")
PYTHON
"$python" "$folder/show.py" 2>"$folder/err" || { cat "$folder/err" >&2; exit 1; }
