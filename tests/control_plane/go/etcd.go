package main

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"os/signal"
	"syscall"

	"go.etcd.io/etcd/server/v3/embed"
)

func init() { components["etcd"] = etcd }

// etcd runs one member on loopback. It never waits for the disk: what a test stores need not survive a power cut.
func etcd() int {
	flags := flag.NewFlagSet("etcd", flag.ExitOnError)
	folder := flags.String("data-dir", "etcd", "where the data lies")
	clients := flags.String("client-url", "http://127.0.0.1:2379", "where clients connect to")
	peers := flags.String("peer-url", "http://127.0.0.1:2380", "where other members would connect to")
	_ = flags.Parse(os.Args[1:]) // ends the process when they are wrong

	config := embed.NewConfig()
	config.Dir, config.LogLevel, config.UnsafeNoFsync = *folder, "warn", true
	for _, one := range []struct {
		text string
		urls []*[]url.URL
	}{
		{*clients, []*[]url.URL{&config.ListenClientUrls, &config.AdvertiseClientUrls}},
		{*peers, []*[]url.URL{&config.ListenPeerUrls, &config.AdvertisePeerUrls}},
	} {
		parsed, err := url.Parse(one.text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 2
		}
		for _, urls := range one.urls {
			*urls = []url.URL{*parsed}
		}
	}
	config.InitialCluster = config.InitialClusterFromName(config.Name)

	server, err := embed.StartEtcd(config)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer server.Close()
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGINT, syscall.SIGTERM)
	select {
	case <-told:
		return 0
	case err := <-server.Err():
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
}
