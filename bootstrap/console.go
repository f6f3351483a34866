package bootstrap

import "fmt"

// mayControl says which clients may change this node with the console: none unless it was
// started so, and with TLS only those whose certificate names an operator.
func (n *Node) mayControl() func(client string) error {
	if !n.config.ConsoleControl {
		return nil
	}
	return func(client string) error {
		if n.config.TLSCert == "" {
			return nil
		}
		if p, ok := n.links.Peer(client); ok && p.Operator {
			return nil
		}
		return fmt.Errorf("to change %s takes a certificate of the cluster's authority that names operator or operator.NAME", n.config.Name)
	}
}
