#!/usr/bin/env bash
# What it shows: strings that PyYAML's safe_dump writes without quotes and that sigs.k8s.io/yaml, the
#   reader of kubectl and Helm, takes for numbers or booleans. PyYAML itself reads them back as the
#   strings they were, so a round trip in Python finds nothing.
# Why it matters: a short commit hash such as 12e5 or 0812345 in an environment variable or a label
#   is refused by the API server, or arrives as another value, in one commit out of many.
# Versions: PyYAML 6.0.3, sigs.k8s.io/yaml 1.6.0, Python 3.11, Go 1.26.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" PyYAML==6.0.3

mkdir "$folder/go"
cat >"$folder/go/main.go" <<'GO'
// Prints what sigs.k8s.io/yaml makes of the YAML on standard input, as JSON.
package main

import (
	"fmt"
	"io"
	"log"
	"os"

	"sigs.k8s.io/yaml"
)

func main() {
	text, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	answer, err := yaml.YAMLToJSON(text)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(answer))
}
GO
cd "$folder/go"
if ! { go mod init show && go get sigs.k8s.io/yaml@v1.6.0 && go build -o read .; } >log 2>&1; then
    cat log >&2
    exit 1
fi

cat >"$folder/show.py" <<'PYTHON'
"""Write strings with PyYAML, read them with PyYAML and with the reader of kubectl."""
import json
import subprocess
import sys

import yaml

STRINGS = ["12e5", "1e3", "0812345", "08", "0o17", "+.5", "y", "n", "1.5e3", "0x1F", "yes", "7"]
EXPECTED = {"12e5", "1e3", "1.5e3", "0812345", "08", "0o17", "+.5", "y", "n"}

print("PyYAML", yaml.__version__, "- sigs.k8s.io/yaml 1.6.0")
changed = set()
for text in STRINGS:
    written = yaml.safe_dump({"value": text})
    assert yaml.safe_load(written) == {"value": text}
    read = json.loads(
        subprocess.run([sys.argv[1]], input=written, text=True, capture_output=True, check=True).stdout
    )["value"]
    print(f"{text!r:12} is written as {written.strip()!r:20} and read as {read!r}")
    if read != text:
        changed.add(text)
if changed != EXPECTED:
    sys.exit(f"changed: expected {sorted(EXPECTED)}, got {sorted(changed)}")
print("as described:", len(changed), "of", len(STRINGS), "strings are not strings any more")
PYTHON
"$python" "$folder/show.py" "$folder/go/read"
