package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dynactor/dynactor/bootstrap"
)

// startCmd is node start. Names are those of the environment and of the
// configuration file.
type startCmd struct {
	Name            string        `help:"This node's name in its cluster: letters, digits and . _ -"`
	Cluster         string        `help:"The cluster's name." default:"dynactor"`
	Listen          string        `help:"Where nodes and clients connect, HOST:PORT." default:"127.0.0.1:7800"`
	Advertise       string        `help:"Address that others reach this node under, if not that of --listen."`
	HTTP            string        `name:"http" help:"Where /healthz, /readyz and /metrics are served, HOST:PORT; not at all if empty."`
	DataDir         string        `help:"Folder for this node's data; it belongs to one node of one cluster." type:"path"`
	Seed            []string      `help:"Address of another node, HOST:PORT; repeatable."`
	Consul          string        `help:"Address of the local Consul agent; takes the place of --seed."`
	Found           bool          `help:"Found the cluster together with the other nodes if there is none yet."`
	Expect          int           `help:"How many nodes found the cluster (default: this one and the seeds; with Consul 3)."`
	AutoJoin        bool          `help:"When founding: take every node that asks to join, without an operator's commit."`
	Zone            string        `help:"Group of nodes that fail together; replicas go to distinct zones."`
	Capacity        int           `help:"Weight of this node against the others." default:"1"`
	Partitions      int           `help:"Number of partitions, a power of two, fixed when the cluster is founded." default:"64"`
	MaxValue        int           `help:"Largest value in bytes." default:"1048576"`
	MaxRequests     int           `help:"Requests in flight before this node answers overloaded." default:"4096"`
	Timeout         time.Duration `help:"Time for a request that sets none." default:"5s"`
	HintsMB         int           `name:"hints-mb" help:"MiB to keep at most for other nodes while they cannot be reached." default:"1024"`
	CacheMB         int           `name:"cache-mb" help:"Size of the caches of records and blocks in MiB." default:"64"`
	AAEInterval     time.Duration `name:"aae-interval" help:"How often each two replicas are compared, at least; 0: only when told to (node cluster repair)." default:"10m"`
	BackgroundFloor int           `help:"Percent of the time that background work gets at least, however much requests suffer; 100: all it can use." default:"5"`
	Reap            string        `help:"on or off: forget deleted and expired values once no copy of them can come back." default:"on"`
	TLSCert         string        `name:"tls-cert" help:"Certificate of this node (PEM)." type:"path"`
	TLSKey          string        `name:"tls-key" help:"Key of the certificate (PEM)." type:"path"`
	TLSCA           string        `name:"tls-ca" help:"Authority that signs nodes (PEM)." type:"path"`
	OTLPEndpoint    string        `name:"otlp-endpoint" env:"DYNACTOR_OTLP_ENDPOINT,OTEL_EXPORTER_OTLP_ENDPOINT" help:"URL of a collector for traces of requests (OTLP over HTTP); none are made if empty."`
	TraceSample     float64       `help:"Share of requests that are traced, 0 to 1, where the client does not say." default:"0.01"`
	LogLevel        string        `help:"debug, info, warn or error." default:"info"`
	ConsoleControl  bool          `help:"Let node console change settings, restart and kill actors; with TLS only for certificates that name operator or operator.NAME."`
	LogFormat       string        `help:"text or json; by default text on a terminal and json elsewhere."`
	Config          string        `help:"YAML file with the same settings, and buckets to create at the founding." type:"path"`
}

// config puts flags, environment and file together.
func (c *startCmd) config() (bootstrap.Config, bootstrap.File, error) {
	out := bootstrap.Config{
		Name: c.Name, Cluster: c.Cluster, Listen: c.Listen, Advertise: c.Advertise, HTTP: c.HTTP, DataDir: c.DataDir,
		Seeds: c.Seed, Consul: c.Consul, Found: c.Found, Expect: c.Expect, AutoJoin: c.AutoJoin, Zone: c.Zone, Capacity: c.Capacity,
		Partitions: c.Partitions, MaxValue: c.MaxValue, MaxRequests: c.MaxRequests, Timeout: c.Timeout, CacheMB: c.CacheMB, HintsMB: c.HintsMB, AAEInterval: c.AAEInterval,
		BackgroundFloor: c.BackgroundFloor, Reap: c.Reap, OTLPEndpoint: c.OTLPEndpoint, TraceSample: c.TraceSample,
		TLSCert: c.TLSCert, TLSKey: c.TLSKey, TLSCA: c.TLSCA, LogLevel: c.LogLevel, LogFormat: c.LogFormat, ConsoleControl: c.ConsoleControl,
	}
	var file bootstrap.File
	if c.Config != "" {
		var err error
		if file, err = bootstrap.ReadFile(c.Config); err != nil {
			return out, file, withSettings(err, out, file)
		}
		out.Buckets = file.Buckets
	}
	return out, file, bootstrap.WithLines(out.Validate(), file)
}

// withSettings adds to the problems of a file that could be taken apart those
// of the settings that were found in it.
func withSettings(err error, config bootstrap.Config, file bootstrap.File) error {
	var inFile, inSettings *bootstrap.Problems
	if len(file.Settings) == 0 || !errors.As(err, &inFile) || !errors.As(bootstrap.WithLines(config.Validate(), file), &inSettings) {
		return err
	}
	for _, p := range inSettings.List {
		if !slices.ContainsFunc(inFile.List, func(q bootstrap.Problem) bool { return q.Setting == p.Setting }) {
			inFile.List = append(inFile.List, p)
		}
	}
	return err
}

// Run runs the node until it is told to stop, or cannot go on.
func (c *startCmd) Run(ctx context.Context, s *streams) error {
	config, _, err := c.config()
	if err != nil {
		return err
	}
	n, err := bootstrap.Start(config, bootstrap.Options{Version: version, LogTo: s.err, Now: wallClock, MessageLife: messageLife})
	if err != nil {
		return err
	}
	ready := make(chan error, 1)
	waiting, giveUp := context.WithCancel(ctx)
	defer giveUp()
	go func() { ready <- n.WaitReady(waiting) }()
	for {
		select {
		case err := <-ready:
			if err == nil {
				fmt.Fprintf(s.out, "ready: node %s of cluster %s on %s, %d partitions\n",
					config.Name, config.Cluster, n.Addr(), n.Health().Partitions)
			}
			ready = nil
		case <-ctx.Done():
			return stop(n)
		case err := <-n.Fatal():
			return errors.Join(fmt.Errorf("the store failed, the node cannot go on: %w", err), stop(n))
		}
	}
}

// stop ends a node in order, within its time.
func stop(n *bootstrap.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), bootstrap.StopTimeout)
	defer cancel()
	if err := n.Stop(ctx); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	return nil
}

// fileResolver lets the file named by --config answer for flags that neither
// the command line nor the environment sets.
func fileResolver(args []string) kong.Resolver {
	path := configPath(args)
	var file bootstrap.File
	if path != "" {
		// What is wrong with the file is reported by startCmd.config.
		file, _ = bootstrap.ReadFile(path)
	}
	return kong.ResolverFunc(func(_ *kong.Context, parent *kong.Path, flag *kong.Flag) (any, error) {
		if parent.Command == nil || parent.Command.Name != "start" {
			return nil, nil
		}
		for _, env := range flag.Envs {
			if _, ok := os.LookupEnv(env); ok {
				return nil, nil
			}
		}
		s, ok := file.Settings[flag.Name]
		if !ok {
			return nil, nil
		}
		return strings.Join(s.Values, ","), nil
	})
}

// configPath finds the value of --config before the flags are parsed.
func configPath(args []string) string {
	if !slices.Contains(args, "start") {
		return ""
	}
	for i, a := range args {
		if v, ok := strings.CutPrefix(a, "--config="); ok {
			return v
		}
		if a == "--config" && i+1 < len(args) {
			return args[i+1]
		}
	}
	return os.Getenv("DYNACTOR_CONFIG")
}
