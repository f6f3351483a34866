package bootstrap

import "github.com/dynactor/dynactor/bootstrap/telemetry"

// startTraces begins to send traces of requests, if they go anywhere. The actors stop before.
func (n *Node) startTraces(Options) error {
	if n.config.OTLPEndpoint == "" {
		return nil
	}
	t, err := telemetry.NewTraces(telemetry.TraceConfig{
		Endpoint: n.config.OTLPEndpoint, Sample: n.config.TraceSample, Node: n.config.Name, Cluster: n.config.Cluster, Log: n.log,
	})
	if err != nil {
		return err
	}
	n.spans = t
	n.onStop(t.Stop)
	return nil
}

// checkTraces reports what is wrong with where traces go.
func (c Config) checkTraces(bad func(string, string, ...any)) {
	if c.OTLPEndpoint != "" {
		if err := (telemetry.TraceConfig{Endpoint: c.OTLPEndpoint}).Validate(); err != nil {
			bad("otlp-endpoint", "%v", err)
		}
	}
	if !(c.TraceSample >= 0 && c.TraceSample <= 1) { // NaN is not
		bad("trace-sample", "%v is not within 0 to 1", c.TraceSample)
	}
}
