#!/bin/sh
# Write requirements.txt from requirements.in: hashed, for Python 3.11 to 3.13, without torch and
# what only torch needs, which come with the base image or with the TORCH argument of its build.
# Write requirements-vllm.txt for the image with vLLM, for Python 3.12 and 3.13.
set -eu
cd "$(dirname "$0")"
set -- torch triton
for part in cublas cuda-cccl cuda-cupti cuda-nvrtc cuda-runtime cudnn-cu13 cufft cufile curand \
    cusolver cusparse cusparselt-cu13 nccl-cu13 nvjitlink nvshmem-cu13 nvtx; do
    set -- "$@" "nvidia-$part"
done
compile() {
    uv pip compile --generate-hashes --no-emit-index-url --no-annotate --quiet \
        --custom-compile-command trainer-image/lock.sh "$@"
}
without() {
    for package in "$@"; do
        printf ' --no-emit-package %s' "$package"
    done
}

# shellcheck disable=SC2046  # one word per option
compile --universal --python-version 3.11 \
    $(without "$@" setuptools sympy mpmath networkx cuda-bindings cuda-pathfinder cuda-toolkit) \
    requirements.in --output-file requirements.txt

# Packages in both files have the same version, except numpy: numba, which vLLM needs, lags behind.
shared=$(mktemp)
trap 'rm "$shared"' EXIT
sed -n '/^numpy==/d; s/^\([a-z0-9._-]*==[^ ;]*[^\\]*\).*/\1/p' requirements.txt >"$shared"
# shellcheck disable=SC2046  # one word per option
compile --universal --python-version 3.12 --constraints "$shared" \
    $(without "$@") requirements.in requirements-vllm.in --output-file requirements-vllm.txt
