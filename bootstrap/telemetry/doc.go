// Package telemetry tells others how a node is, through OpenTelemetry: metrics for Prometheus
// (metrics*.go), and traces of requests for a collector (traces*.go). It reads what the node's
// parts have counted when somebody asks, and holds up none of them. Actors know only
// interfaces of their own.
package telemetry
