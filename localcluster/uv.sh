#!/bin/bash
# uv.sh FOLDER WORDS...: run the uv of the environment in FOLDER. uv does not read the settings of
# pip, so this script passes it the index and the certificates of this machine.
set -euo pipefail
folder=$1
shift
index=$("$folder/bin/python" -m pip config get global.index-url 2>/dev/null || true)
[ -z "$index" ] || export UV_DEFAULT_INDEX=$index
[ ! -e /etc/ssl/certs/ca-certificates.crt ] || export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
VIRTUAL_ENV=$folder exec "$folder/bin/uv" "$@"
