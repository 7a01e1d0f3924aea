// Command health says what GitOps tools make of objects: it reads a JSON list of objects and prints a
// JSON list of verdicts, by the libraries with which the tools judge.
//
// Its first argument is a Lua script for Argo CD, the second and third are the expressions of Flux
// for an object that is current and for one that has failed.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/argoproj/argo-cd/v3/util/lua"
	"github.com/argoproj/gitops-engine/pkg/health"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// verdict is what each tool makes of one object.
type verdict struct {
	// Kstatus is the status of Flux and of cli-utils without an expression.
	Kstatus string `json:"kstatus"`
	// Argo is the health of Argo CD without a script; empty for an object that it does not judge.
	Argo string `json:"argo"`
	// ArgoScript is the health of Argo CD with the script.
	ArgoScript string `json:"argoScript"`
	// Flux is the status of Flux with the expressions.
	Flux string `json:"flux"`
}

func judge(object *unstructured.Unstructured, script, current, failed string) (verdict, error) {
	var found verdict
	result, err := status.Compute(object)
	if err != nil {
		return found, fmt.Errorf("kstatus: %w", err)
	}
	found.Kstatus = string(result.Status)

	builtIn, err := health.GetResourceHealth(object, nil)
	if err != nil {
		return found, fmt.Errorf("the engine of Argo CD: %w", err)
	}
	if builtIn != nil {
		found.Argo = string(builtIn.Status)
	}

	machine := lua.VM{}
	custom, err := machine.ExecuteHealthLua(object, script)
	if err != nil {
		return found, fmt.Errorf("the script for Argo CD: %w", err)
	}
	found.ArgoScript = string(custom.Status)

	evaluator, err := cel.NewStatusEvaluator(&kustomize.HealthCheckExpressions{
		Current: current,
		Failed:  failed,
	})
	if err != nil {
		return found, fmt.Errorf("the expressions of Flux: %w", err)
	}
	byFlux, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return found, fmt.Errorf("the expressions of Flux: %w", err)
	}
	found.Flux = string(byFlux.Status)
	return found, nil
}

func run() error {
	if len(os.Args) != 4 {
		return errors.New("expects a Lua script and two expressions, and objects on stdin")
	}
	var objects []json.RawMessage
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return err
	}
	verdicts := []verdict{}
	for _, text := range objects {
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(text); err != nil {
			return err
		}
		found, err := judge(object, os.Args[1], os.Args[2], os.Args[3])
		if err != nil {
			return err
		}
		verdicts = append(verdicts, found)
	}
	return json.NewEncoder(os.Stdout).Encode(verdicts)
}

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}
