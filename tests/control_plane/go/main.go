// One binary that holds etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kubectl, so that tests can run
// a real Kubernetes control plane on one machine without containers. A test fixture, never part of the product.
//
//	control-plane COMPONENT [the component's own flags]
//
// A symbolic link that is named like a component (kubectl, kube-apiserver) is that component.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"maps"
	_ "time/tzdata"

	_ "k8s.io/component-base/logs/json/register"
	_ "k8s.io/component-base/metrics/prometheus/clientgo"
	_ "k8s.io/component-base/metrics/prometheus/version"
)

// components are filled by the init functions of the files beside this one; each answers an exit status.
var components = map[string]func() int{}

func main() {
	if run, ok := components[bare(os.Args[0])]; ok {
		os.Exit(run())
	}
	if len(os.Args) > 1 {
		if run, ok := components[bare(os.Args[1])]; ok {
			os.Args = os.Args[1:]
			os.Exit(run())
		}
	}
	names := slices.Sorted(maps.Keys(components))
	fmt.Fprintln(os.Stderr, "usage: control-plane "+strings.Join(names, "|")+" [flags]")
	os.Exit(2)
}

// bare is the name of a component without folder and prefix.
func bare(name string) string {
	return strings.TrimPrefix(filepath.Base(name), "kube-")
}
