#!/bin/bash
# environment.sh FOLDER PYTHON: install the locked development environment into FOLDER, with this
# project in editable mode. On Debian, the package python3-venv is installed if it is missing.
set -euo pipefail
folder=$1 python=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$("$python" --version) is too old; install Python 3.11 or newer, or set PYTHON=... for make"
    exit 1
}
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "Python's venv module is incomplete; install python3-venv and run this command again"
        exit 1
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv
fi

"$folder/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9

uv() { bash localcluster/uv.sh "$folder" "$@"; }
uv pip sync --require-hashes tests/requirements.txt
uv pip install --no-deps --no-build-isolation --editable .
