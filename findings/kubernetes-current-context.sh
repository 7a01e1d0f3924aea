#!/usr/bin/env bash
# What it shows: KUBECONFIG lists two files and both name a current-context. client-go (kubectl,
#   Helm) takes the first file's, as Kubernetes documents; the Python client takes the last one's,
#   in its synchronous and in its asynchronous half. Clusters and users of equal names are taken
#   from the first file by both.
# Why it matters: in one shell kubectl and a Python tool talk to two different clusters.
# Versions: kubernetes 37.0.2, k8s.io/client-go 0.34.4, Python 3.11, Go 1.26.
# Seen: 2026-11-29. Compiling client-go takes some minutes the first time.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
python="$folder/venv/bin/python"
"$python" -m pip install --quiet --disable-pip-version-check uv==0.13.9
"$python" -m uv pip install --quiet --python "$python" kubernetes==37.0.2 aiohttp==3.14.5

for name in first second; do
    cat >"$folder/$name.yaml" <<YAML
apiVersion: v1
kind: Config
current-context: $name
clusters: [{name: $name, cluster: {server: "http://$name.example:8080"}}]
contexts: [{name: $name, context: {cluster: $name, user: $name}}]
users: [{name: $name, user: {token: abc}}]
YAML
done
export KUBECONFIG="$folder/first.yaml:$folder/second.yaml"

mkdir "$folder/go"
cat >"$folder/go/main.go" <<'GO'
package main

import (
	"fmt"
	"log"

	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(config.Host)
}
GO
cd "$folder/go"
if ! { go mod init show && go get k8s.io/client-go@v0.34.4 && go mod tidy; } >log 2>&1; then
    cat log >&2
    exit 1
fi
go_host=$(go run .)

cat >"$folder/show.py" <<'PYTHON'
"""The server that each half of the Python client takes from KUBECONFIG."""
import asyncio
import importlib.metadata
import os
import sys

import kubernetes.aio.client
import kubernetes.aio.config
import kubernetes.client
import kubernetes.config

go_host = sys.argv[1]
one = kubernetes.client.Configuration()
kubernetes.config.load_kube_config(os.environ["KUBECONFIG"], client_configuration=one)
two = kubernetes.aio.client.Configuration()
asyncio.run(
    kubernetes.aio.config.load_kube_config(os.environ["KUBECONFIG"], client_configuration=two)
)
print("k8s.io/client-go 0.34.4     ", go_host)
print("kubernetes    ", importlib.metadata.version("kubernetes"), "     ", one.host)
print("kubernetes.aio", importlib.metadata.version("kubernetes"), "     ", two.host)
first, second = "http://first.example:8080", "http://second.example:8080"
if (go_host, one.host, two.host) != (first, second, second):
    sys.exit("changed: expected the first file's cluster from Go and the second's from Python")
print("as described: Go takes the first file's current-context, Python the last one's")
PYTHON
"$python" "$folder/show.py" "$go_host"
