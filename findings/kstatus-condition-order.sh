#!/usr/bin/env bash
# What it shows: kstatus, with which Flux and cli-utils judge a custom resource, reads the list of
#   conditions from the top and stops at the first that is Stalled=True or Reconciling=True. The same
#   two conditions in the other order give another result: Failed or InProgress. The Kubernetes API
#   keys conditions by their type, so their order has no meaning there.
# Why it matters: a controller that adds Stalled=True below an older Reconciling=True has failed, and
#   whoever waits for its object waits until the timeout.
# Versions: sigs.k8s.io/cli-utils 0.37.2, Go 1.26.
# Seen: 2026-11-29.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

cat >"$folder/main.go" <<'GO'
package main

import (
	"fmt"
	"log"
	"os"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// compute returns the status of an object on which these conditions are true, in this order.
func compute(conditions ...string) status.Status {
	list := []any{}
	for _, name := range conditions {
		list = append(list, map[string]any{"type": name, "status": "True", "reason": "Any", "message": ""})
	}
	result, err := status.Compute(&unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "example.com/v1",
		"kind":       "Example",
		"metadata":   map[string]any{"name": "one", "generation": int64(1)},
		"status":     map[string]any{"observedGeneration": int64(1), "conditions": list},
	}})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(conditions, "->", result.Status)
	return result.Status
}

func main() {
	fmt.Println("sigs.k8s.io/cli-utils 0.37.2")
	first := compute("Stalled", "Reconciling")
	second := compute("Reconciling", "Stalled")
	if first != status.FailedStatus || second != status.InProgressStatus {
		fmt.Fprintln(os.Stderr, "changed: the order of Stalled and Reconciling does not decide any more")
		os.Exit(1)
	}
	fmt.Println("as described: the first condition in the list decides")
}
GO
cd "$folder"
if ! { go mod init show && go get sigs.k8s.io/cli-utils@v0.37.2 && go mod tidy; } >log 2>&1; then
    cat log >&2
    exit 1
fi
go run .
