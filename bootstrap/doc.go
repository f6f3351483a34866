// Package bootstrap wires a node: configuration, the data directory and whom it
// belongs to, seeds from Consul or a list, founding, health, and start and stop
// in order.
//
// Start: configuration is checked; the store is opened and locked; its owner is
// compared; the start number is raised durably; the port is taken; links and
// actors start; seeds are dialled. Stop is the reverse: the seed registry
// forgets the node, requests in flight finish, vnodes mark their clean stop,
// links close, the store closes.
package bootstrap
