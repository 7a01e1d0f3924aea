"""A Kubernetes cluster for a machine that has none, and the demo that runs on it.

`python -m localcluster up` starts what FlashRun needs: a cluster, an S3 server and an image
registry. Without Docker it builds and starts all of them itself: the Kubernetes servers from Go
modules, containerd and runc from Debian.

The modules, from the ground up:

- `steps`        progress on the terminal, one line per step, and a log file for the rest
- `folders`      folders: a cache that survives, a state that `down` removes
- `process`      servers that outlive their starter, recognized by pid and start time
- `ports`        free ports, chosen once and remembered
- `toolchain`    Debian packages and Go programs, installed or built only when missing
- `pki`          a certificate authority and the certificates that it signs
- `controlplane` etcd, the API server and its controllers; needs no root
- `network`      the bridge of the pods, and its removal
- `node`         containerd, kubelet, kube-proxy
- `dns`          the DNS server of the cluster
- `services`     the S3 server and the image registry
- `docker`       clusters in a Docker engine: kind and k3d
- `cluster_kind` which kind of cluster this machine gets
- `lifecycle`    up, down and status of all of it
- `images`       the two images of this project, built and pushed
- `chart`        the Helm chart, installed and ready
- `tiny_model`   the model that the examples train, made in a pod
- `mirror_model` the script that runs in that pod
- `real_model`   SmolLM2, downloaded and converted in the trainer image
- `comparison`   the stages of a training side by side, by the evaluations of its runs
- `demo`         what `make demo` does

It is a tool for development and is not part of the wheel.
"""
