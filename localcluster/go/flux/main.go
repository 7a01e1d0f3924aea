// Command flux does what Flux's kustomize-controller does with a source, by the libraries of Flux.
//
// `flux build SOURCE KUSTOMIZATION` prints the objects that it reads in a folder, as a JSON list: the
// file KUSTOMIZATION is the object of Flux that says where in SOURCE they are. With `apply` it also
// applies them to the cluster of KUBECONFIG, and prints what changed for each.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/kustomize"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/utils"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// read returns the objects of a source, built as the object of Flux says.
func read(source, file string) ([]*unstructured.Unstructured, error) {
	text, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer text.Close()
	own, err := utils.ReadObject(text)
	if err != nil {
		return nil, fmt.Errorf("the object of Flux: %w", err)
	}
	path, _, err := unstructured.NestedString(own.Object, "spec", "path")
	if err != nil {
		return nil, err
	}
	folder := filepath.Join(source, path)
	if _, err := kustomize.NewGenerator(source, *own).WriteFile(folder); err != nil {
		return nil, fmt.Errorf("the kustomization: %w", err)
	}
	built, err := kustomize.SecureBuild(source, folder, false)
	if err != nil {
		return nil, fmt.Errorf("the build: %w", err)
	}
	printed, err := built.AsYaml()
	if err != nil {
		return nil, err
	}
	return utils.ReadObjects(bytes.NewReader(printed))
}

// apply applies objects as the controller does, and returns the name of each with what happened.
func apply(objects []*unstructured.Unstructured) (map[string]string, error) {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return nil, err
	}
	connection, err := client.New(config, client.Options{})
	if err != nil {
		return nil, err
	}
	poller := polling.NewStatusPoller(connection, connection.RESTMapper(), polling.Options{})
	manager := ssa.NewResourceManager(connection, poller, ssa.Owner{
		Field: "kustomize-controller",
		Group: "kustomize.toolkit.fluxcd.io",
	})
	manager.SetOwnerLabels(objects, "runs", "flux-system")
	changes, err := manager.ApplyAllStaged(context.Background(), objects, ssa.DefaultApplyOptions())
	if err != nil {
		return nil, err
	}
	done := map[string]string{}
	for _, entry := range changes.Entries {
		done[entry.Subject] = string(entry.Action)
	}
	return done, nil
}

func run() error {
	if len(os.Args) != 4 {
		return errors.New("expects build or apply, a source, and a Kustomization of Flux")
	}
	objects, err := read(os.Args[2], os.Args[3])
	if err != nil {
		return err
	}
	if os.Args[1] == "build" {
		return json.NewEncoder(os.Stdout).Encode(objects)
	}
	done, err := apply(objects)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(done)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
