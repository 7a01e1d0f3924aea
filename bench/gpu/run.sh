#!/bin/bash
# Install what this folder holds into an environment of its own, without a network, and measure:
#   bash run.sh [arguments of bench.gpu.measure]
# PYTHON is the interpreter to use, which has PyTorch unless it was packed; RESULTS is where the
# report goes. With the default of 8 minutes for the measurements, all of it takes less than ten.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
results=${RESULTS:-$here/results}
environment=${ENVIRONMENT:-$here/environment}
wanted=$(cat "$here/python-version")
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$found" != "$wanted" ]; then
    echo "stopped: $python is Python $found, and the wheels here are for $wanted: set PYTHON to that version, or pack again with --python $found" >&2
    exit 1
fi
began=$SECONDS
if [ ! -e "$environment/.ready" ]; then
    "$python" -m venv --without-pip "$environment"
    install=("$environment/bin/python" "$(echo "$here"/wheels/pip-*.whl)/pip" install --quiet
        --disable-pip-version-check --no-index --find-links "$here/wheels")
    "${install[@]}" --no-deps --require-hashes -r "$here/requirements.txt"
    if [ -e "$here/torch" ]; then
        "${install[@]}" "$(cat "$here/torch")"
    fi
    # What the machine's Python has comes after what is installed here. That Python may be one of a
    # virtual environment, whose packages an environment made with it does not see: they are named.
    packages=$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    "$python" -c 'import site; print("\n".join(site.getsitepackages()))' >"$packages/machine.pth"
    touch "$environment/.ready"
fi
echo "installed in $((SECONDS - began)) s"
sources=$here/sources
export PYTHONPATH=$sources:$sources/operator/src:$sources/trainer-image/src
export HF_HUB_OFFLINE=1 PYTHONHASHSEED=0
exec "$environment/bin/python" -m bench.gpu.measure --out "$results" "$@"
