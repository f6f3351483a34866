package link

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/messages"
)

// authority is a CA for one test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// config is TLS for an end whose certificate has the names; without any it has
// no certificate.
func (a *authority) config(names ...string) *tls.Config {
	c := &tls.Config{RootCAs: a.pool, ClientCAs: a.pool, ClientAuth: tls.VerifyClientCertIfGiven}
	if len(names) > 0 {
		c.Certificates = []tls.Certificate{a.issue(time.Now().Add(time.Hour), names...)}
	}
	return c
}

func (a *authority) issue(until time.Time, names ...string) tls.Certificate {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: names[0]},
		NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, name := range names {
		if u, ok := strings.CutPrefix(name, "uri:"); ok {
			template.URIs = append(template.URIs, &url.URL{Opaque: u})
			continue
		}
		template.DNSNames = append(template.DNSNames, name)
	}
	key := newKey(a.t)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func secure(t testing.TB, id string, c *tls.Config) *end {
	t.Helper()
	return newEnd(t, id, func(config *Config) { config.TLS = c })
}

func TestTLSBetweenNodesAndClients(t *testing.T) {
	ca := newAuthority(t)
	a, b := secure(t, "a", ca.config("node.a")), secure(t, "b", ca.config("uri:node.b", "host.example"))
	vnode, _ := b.vnode("vnode/1")
	get := a.inbox("get/1", 10)
	meet(t, a, b)
	if !traffic(t, get, vnode) {
		t.Error("no traffic over TLS")
	}
	if s, _ := a.links.Peer("b"); !s.Encrypted {
		t.Errorf("status is %+v", s)
	}
	// A client proves nothing, and checks the node.
	app := newEnd(t, "app", func(c *Config) { c.Role, c.ClusterID, c.TLS = messages.RoleClient, nil, ca.config() })
	if err := app.links.Connect(b.address); err != nil {
		t.Fatal(err)
	}
	in := app.inbox("client/1", 10)
	eventually(t, "client up", func() bool { return app.bothUp("b") })
	// A PID remembers the process behind it: one object per system.
	in.send(b.pid("vnode/1"), &messages.KeysRequest{Limit: 1})
	next[*messages.KeysReply](t, in)
}

func TestTLSRefusals(t *testing.T) {
	ca, foreign := newAuthority(t), newAuthority(t)
	expired := ca.config("node.x")
	expired.Certificates = []tls.Certificate{ca.issue(time.Now().Add(-time.Hour), "node.x")}
	for _, c := range []struct {
		name string
		id   string
		tls  *tls.Config
		// text is in the dialler's last error.
		text string
	}{
		{"certificate of another node", "x", ca.config("node.y"), "role not allowed"},
		{"certificate of a client", "x", ca.config("client.x"), "role not allowed"},
		{"no certificate", "x", ca.config(), "role not allowed"},
		{"certificate of another authority", "x", func() *tls.Config {
			f := foreign.config("node.x")
			f.RootCAs = ca.pool
			return f
		}(), ""},
		{"expired certificate", "x", expired, ""},
		{"authority not trusted by the dialler", "x", func() *tls.Config {
			f := ca.config("node.x")
			f.RootCAs = foreign.pool
			return f
		}(), "certificate signed by unknown authority"},
		{"plaintext", "x", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := secure(t, "a", ca.config("node.a"))
			x := newEnd(t, c.id, func(config *Config) {
				// Only the dialling side of x matters here.
				config.TLS = c.tls
				if c.tls != nil && len(c.tls.Certificates) == 0 {
					config.TLS.Certificates = nil
					config.TLS.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil }
				}
			})
			x.setPeer("a", a.address)
			eventually(t, "attempt failed", func() bool {
				s, _ := x.links.Peer("a")
				return s.LastError != "" && strings.Contains(s.LastError, c.text)
			})
			if x.up("a") || a.up("x") {
				t.Error("a link came up")
			}
		})
	}
}

// The dialler too believes only the certificate: at b's address sits a node
// that says it is b and cannot show it.
func TestTLSDiallerChecksTheNode(t *testing.T) {
	ca := newAuthority(t)
	a := secure(t, "a", ca.config("node.a"))
	impostor := secure(t, "b", ca.config("node.evil"))
	a.setPeer("b", impostor.address)
	eventually(t, "refused", func() bool {
		s, _ := a.links.Peer("b")
		return strings.Contains(s.LastError, "does not name")
	})
	if a.up("b") {
		t.Error("a link came up")
	}
}

// TestOperatorOnBothLanes: who knows the id and the start of an operator's client has not its rights.
func TestOperatorOnBothLanes(t *testing.T) {
	ca := newAuthority(t)
	b := secure(t, "b", ca.config("node.b"))
	call := func(id string, lane uint8, c *tls.Config) byte {
		c.ServerName = "node.b"
		conn, err := tls.Dial("tcp", b.address, c)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		r := &raw{t: t, Conn: conn, br: bufio.NewReader(conn)}
		kind, _ := r.greet(rawHello(id, messages.RoleClient, lane))
		return kind
	}
	for first, id := range []string{LaneRequest: "app", LaneBulk: "tool"} {
		first, other := uint8(first), uint8(LaneRequest+LaneBulk-first)
		if kind := call(id, first, ca.config("operator.ann")); kind != kindWelcome {
			t.Fatalf("lane %d: the operator is answered with kind %d", first, kind)
		}
		for name, c := range map[string]*tls.Config{"nobody": ca.config(), "another": ca.config("app")} {
			if kind := call(id, other, c); kind == kindWelcome {
				t.Errorf("%s is welcome beside an operator on lane %d", name, first)
			}
		}
		if kind := call(id, other, ca.config("operator.ann")); kind != kindWelcome {
			t.Errorf("the operator's own other lane is answered with kind %d", kind)
		}
		eventually(t, "it is known for an operator", func() bool { s, _ := b.links.Peer(id); return s.Operator })
	}
}
