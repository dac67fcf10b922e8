package main

import (
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
)

func init() {
	components["apiserver"] = func() int { return cli.Run(apiserver.NewAPIServerCommand()) }
	components["controller-manager"] = func() int { return cli.Run(controllermanager.NewControllerManagerCommand()) }
	components["scheduler"] = func() int { return cli.Run(scheduler.NewSchedulerCommand()) }
}
