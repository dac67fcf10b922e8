//go:build modules

// What tests.control_plane.definitions takes from Go modules. Nothing is compiled from this file: it keeps the modules in
// go.mod when that is tidied.
package definitions

import (
	_ "github.com/cilium/cilium/pkg/k8s/apis/cilium.io/client/crds/v2"
	_ "github.com/kedacore/keda/v2/version"
	_ "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	_ "sigs.k8s.io/controller-tools/cmd/controller-gen"
)
