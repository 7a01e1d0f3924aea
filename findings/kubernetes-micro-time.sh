#!/usr/bin/env bash
# What it shows: a Lease whose renewTime is a datetime, written by the Python client of Kubernetes and
#   read by the Go type that the API server reads it with. The client writes isoformat(), which leaves the
#   fraction out where it is 0. MicroTime asks for six digits and refuses the rest. The client reads such
#   a time back as it was, so a round trip in Python finds nothing.
# Why it matters: renewals of a Lease whose time is cut to seconds are all refused, and of one in
#   microseconds one in a million. Times of the other type, Time, are read without a fraction.
# Versions: kubernetes 37.0.2, k8s.io/api and k8s.io/apimachinery 0.34.4, Python 3.11, Go 1.26.
# Seen: 2026-12-01.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" kubernetes==37.0.2

mkdir "$folder/go"
cat >"$folder/go/main.go" <<'GO'
// Prints what the types of Kubernetes make of the Lease on standard input.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	coordination "k8s.io/api/coordination/v1"
)

func main() {
	var lease coordination.Lease
	if err := json.NewDecoder(os.Stdin).Decode(&lease); err != nil {
		fmt.Println("refused:", err)
		return
	}
	fmt.Println("read")
}
GO
cd "$folder/go"
if ! { go mod init show && go get k8s.io/api/coordination/v1@v0.34.4 && go build -o read .; } >log 2>&1; then
    cat log >&2
    exit 1
fi

cat >"$folder/show.py" <<'PYTHON'
"""Leases with three times, written in Python and read in Go."""
import json
import subprocess
import sys
from datetime import UTC, datetime

import kubernetes
from kubernetes.client import ApiClient, V1Lease, V1LeaseSpec, V1ObjectMeta

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def read(title: str, lease: V1Lease) -> str:
    """Return what Go says about the lease."""
    written = ApiClient().sanitize_for_serialization(lease)
    answer = subprocess.run(
        [sys.argv[1]], input=json.dumps(written), text=True, capture_output=True, check=True
    ).stdout.strip()
    print(f"{title}: {json.dumps(written)}\n  {answer}")
    return answer


print("kubernetes", kubernetes.__version__, "- k8s.io/api 0.34.4")
with_fraction = read("123456 microseconds", V1Lease(spec=V1LeaseSpec(renew_time=NOON.replace(microsecond=123456))))
without = read("0 microseconds", V1Lease(spec=V1LeaseSpec(renew_time=NOON)))
other = read("0 microseconds, of type Time", V1Lease(metadata=V1ObjectMeta(creation_timestamp=NOON)))
if (with_fraction, other) != ("read", "read"):
    sys.exit("changed: times with a fraction, or of type Time, are not read")
if not without.startswith("refused: parsing time"):
    sys.exit("changed: a MicroTime of a whole second is not refused any more")
print("as described: the same field is read or refused by its last six digits")
PYTHON
"$python" "$folder/show.py" "$folder/go/read"
