// Package telemetry tells others how a node is, through OpenTelemetry: metrics for Prometheus
// (metrics*.go). It reads what the node's parts have counted when somebody asks, and holds
// up none of them.
package telemetry
