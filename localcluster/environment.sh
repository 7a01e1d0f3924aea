#!/bin/bash
# environment.sh FOLDER PYTHON: the locked development environment in FOLDER, with this project
# in it, editable. Debian keeps a part of venv in a package of its own; it is installed if missing.
set -euo pipefail
folder=$1 python=$2

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "$("$python" --version) is too old; install Python 3.11 or newer, or say make PYTHON=…"
    exit 1
}
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "Python's venv module is incomplete; install python3-venv and run again"
        exit 1
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv
fi

"$folder/bin/python" -c '' 2>/dev/null || "$python" -m venv --clear "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check uv==0.13.9

# uv reads no pip settings; the index and the certificates of this machine are handed on.
index=$("$folder/bin/python" -m pip config get global.index-url 2>/dev/null || true)
[ -z "$index" ] || export UV_DEFAULT_INDEX=$index
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt

uv() { VIRTUAL_ENV=$folder "$folder/bin/uv" "$@"; }
uv pip sync --require-hashes tests/requirements.txt
uv pip install --no-deps --no-build-isolation --editable .
