package bootstrap

import (
	"github.com/dynactor/dynactor/bootstrap/page"
	"github.com/dynactor/dynactor/client"
)

// newPage is the dashboard: it is a client of the cluster through this node, while somebody
// looks at it.
func (n *Node) newPage() *page.Page {
	return page.New(page.Config{Self: n.config.Name, Log: n.log, Connect: func() (*client.Client, error) {
		c := client.Default()
		c.Nodes, c.Cluster, c.Logger = []string{n.listener.Addr().String()}, n.config.Cluster, n.log
		if n.config.TLSCert != "" {
			tls, err := loadTLS(n.config)
			if err != nil {
				return nil, err
			}
			tls.Certificates = nil // a client needs none, and the node's says that it is a node
			c.TLS = tls
		}
		return client.New(c)
	}})
}
