"""A Kubernetes cluster for a machine that has none, and the demo that runs on it.

`python -m localcluster up` brings up what FlashRun needs: a cluster, an S3 server and an
image registry. Without Docker it builds and starts all of it itself: the Kubernetes servers
from Go modules, containerd and runc from Debian.

The modules, from the ground up:

- `steps`        what a person sees: one line a step, a log file for the rest
- `folders`      where things are kept: a cache that survives, a state that `down` removes
- `process`      servers that outlive us, known again by pid and start time
- `ports`        free ports, picked once and remembered
- `toolchain`    Debian packages and Go programs, installed or built only when missing
- `pki`          one certificate authority and its leaves
- `controlplane` etcd, the API server and its controllers; needs no root
- `network`      the bridge pods hang on, and the removal of its traces
- `node`         containerd, kubelet, kube-proxy
- `services`     the S3 server and the image registry
- `docker`       clusters that a Docker engine runs: kind and k3d
- `cluster_kind` which cluster this machine gets
- `lifecycle`    up, down and status of the whole
- `images`       the project's two images, built, pushed, known by digest
- `chart`        the Helm chart, installed and ready
- `tiny_model`   the model the examples train, made in a pod
- `demo`         the story `make demo` tells

It is a tool for development and no part of the wheel.
"""
