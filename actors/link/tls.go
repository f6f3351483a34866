package link

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/dynactor/dynactor/messages"
)

// nodeNamePrefix begins the name in a certificate that lets its holder be the
// node of that id: DNS name or URI "node.<id>".
const nodeNamePrefix = "node."

// VerifyNodeName is the rule for certificates: to say hello as a node takes a
// verified certificate with the DNS name or URI node.<id>. A client needs none,
// and may have one.
func VerifyNodeName(state tls.ConnectionState, hello Hello) error {
	if hello.Role != messages.RoleNode {
		return nil
	}
	if len(state.VerifiedChains) == 0 {
		return errors.New("the role node needs a verified certificate")
	}
	leaf := state.VerifiedChains[0][0]
	want := nodeNamePrefix + hello.NodeID
	for _, name := range leaf.DNSNames {
		if name == want {
			return nil
		}
	}
	for _, uri := range leaf.URIs {
		if uri.String() == want || uri.Opaque == want {
			return nil
		}
	}
	return fmt.Errorf("the certificate of %q does not name %q", leaf.Subject.CommonName, want)
}

// operatorName is the name in a certificate that lets its holder change a node: DNS name or
// URI "operator", or "operator." and a person's name.
const operatorName = "operator"

// IsOperator reports whether a verified certificate names an operator.
func IsOperator(state tls.ConnectionState) bool {
	if len(state.VerifiedChains) == 0 {
		return false
	}
	leaf := state.VerifiedChains[0][0]
	names := slices.Clone(leaf.DNSNames)
	for _, uri := range leaf.URIs {
		names = append(names, uri.String())
	}
	return slices.ContainsFunc(names, func(name string) bool {
		return name == operatorName || strings.HasPrefix(name, operatorName+".")
	})
}

// serverTLS is the configured TLS for accepted connections.
func serverTLS(base *tls.Config) *tls.Config {
	c := base.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13)
	return c
}

// clientTLS is the configured TLS for dialled connections. The library checks
// a certificate against a host name; ours name nodes, and whom an address
// belongs to is known only after the hello. So the chain is verified here and
// the name afterwards (VerifyPeer); a certificate that does not verify never
// gets to see our hello.
func clientTLS(base *tls.Config) *tls.Config {
	c := base.Clone()
	c.MinVersion = max(c.MinVersion, tls.VersionTLS13)
	if c.InsecureSkipVerify {
		return c // the operator's own choice
	}
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(state tls.ConnectionState) error {
		if _, err := verifyChain(base, state); err != nil {
			return err
		}
		if base.VerifyConnection != nil {
			return base.VerifyConnection(state)
		}
		return nil
	}
	return c
}

// verifyChain verifies a server's certificate against the configured roots.
func verifyChain(base *tls.Config, state tls.ConnectionState) ([][]*x509.Certificate, error) {
	if len(state.PeerCertificates) == 0 {
		return nil, errors.New("the server sent no certificate")
	}
	options := x509.VerifyOptions{Roots: base.RootCAs, Intermediates: x509.NewCertPool()}
	if base.Time != nil {
		options.CurrentTime = base.Time()
	}
	for _, cert := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(cert)
	}
	return state.PeerCertificates[0].Verify(options)
}

// authorize asks VerifyPeer whether the certificate may say this hello.
func (l *Links) authorize(w *wire, hello *Hello) *Refusal {
	t, ok := w.Conn.(*tls.Conn)
	if !ok {
		return nil
	}
	state := t.ConnectionState()
	if w.dialled && !l.config.TLS.InsecureSkipVerify && len(state.VerifiedChains) == 0 {
		// The handshake has verified the chain and forgets it.
		chains, err := verifyChain(l.config.TLS, state)
		if err != nil {
			return &Refusal{Peer: hello.NodeID, Code: RefusedRole, Text: err.Error(), Ours: true}
		}
		state.VerifiedChains = chains
	}
	verify := l.config.VerifyPeer
	if verify == nil {
		verify = VerifyNodeName
	}
	if err := verify(state, *hello); err != nil {
		return &Refusal{Peer: hello.NodeID, Code: RefusedRole, Text: err.Error(), Ours: true}
	}
	return nil
}
