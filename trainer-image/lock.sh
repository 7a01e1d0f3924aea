#!/bin/sh
# Write requirements.txt from requirements.in: hashed, for Python 3.11 to 3.13, without torch and
# what only torch needs, which come with the base image or with the TORCH argument of its build.
set -eu
cd "$(dirname "$0")"
set -- torch triton setuptools sympy mpmath networkx cuda-bindings cuda-pathfinder cuda-toolkit
for part in cublas cuda-cccl cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand \
    cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx; do
    set -- "$@" "nvidia-$part"
done
left_out=""
for package in "$@"; do
    left_out="$left_out --no-emit-package $package"
done
# shellcheck disable=SC2086  # one word an option
exec uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
    --no-annotate --quiet $left_out --custom-compile-command trainer-image/lock.sh \
    requirements.in --output-file requirements.txt
