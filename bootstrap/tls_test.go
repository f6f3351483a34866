package bootstrap

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
)

// authority signs certificates for one test.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.file = a.save("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) newKey() *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *authority) save(name, kind string, der []byte) string {
	a.t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue writes the certificate and key of a node.
func (a *authority) issue(node string) (cert, key string) { return a.sign("node." + node) }

// sign writes a certificate for a DNS name, and its key.
func (a *authority) sign(name string) (cert, key string) {
	a.t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	k := a.newKey()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &k.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(k)
	if err != nil {
		a.t.Fatal(err)
	}
	return a.save(name+".pem", "CERTIFICATE", der), a.save(name+".key", "EC PRIVATE KEY", raw)
}

// secure gives a node files for its own name, or for another one.
func (a *authority) secure(c *Config, name string) {
	c.TLSCert, c.TLSKey = a.issue(name)
	c.TLSCA = a.file
}

func TestTLSCluster(t *testing.T) {
	a := newAuthority(t)
	configs := seeded(t, 3)
	for i := range configs {
		a.secure(&configs[i], configs[i].Name)
	}
	nodes := startAll(t, configs)
	oneCluster(t, nodes)
	eventually(t, "both links being up", func() bool { return len(nodes[0].peers()) == 2 })
	for _, p := range nodes[0].links.Peers() {
		if p.Up() && !p.Encrypted {
			t.Errorf("the link to %s is not encrypted", p.ID)
		}
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := tlsClient(t, nodes[0], &tls.Config{RootCAs: pool})
	if _, err := c.Bucket("b").Put(ctx, "k", []byte("v")); err != nil {
		t.Errorf("put: %v", err)
	}
	holds(t, c, "k", []byte("v"))
}

func tlsClient(t *testing.T, n *testNode, config *tls.Config) *client.Client {
	t.Helper()
	return newClientWith(t, func(c *client.Config) { c.TLS = config }, n)
}

// TestTLSStrangers: none of these becomes a founder or is heard.
func TestTLSStrangers(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	for name, secure := range map[string]func(*Config){
		"no certificate":     func(*Config) {},
		"another's name":     func(c *Config) { a.secure(c, "n7") },
		"another authority":  func(c *Config) { other.secure(c, c.Name) },
		"signed by a member": func(c *Config) { other.secure(c, c.Name); c.TLSCA = a.file },
	} {
		t.Run(name, func(t *testing.T) {
			configs := seeded(t, 2)
			a.secure(&configs[0], "n1")
			secure(&configs[1])
			first, second := start(t, configs[0]), start(t, configs[1])
			eventually(t, "the link failing", func() bool {
				for _, n := range []*testNode{first, second} {
					for _, p := range n.status().Peers {
						if p.Error != "" {
							return true
						}
					}
				}
				return false
			})
			if first.Document() != nil || second.Document() != nil || len(first.peers()) != 0 {
				t.Error("a stranger takes part")
			}
		})
	}
}

func TestTLSFiles(t *testing.T) {
	a := newAuthority(t)
	cert, key := a.issue("n1")
	junk := filepath.Join(a.dir, "junk")
	if err := os.WriteFile(junk, []byte("junk"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, otherKey := a.issue("n2")
	for name, tc := range map[string]struct{ cert, key, ca, want string }{
		"no certificate file": {"none", key, a.file, "no such file"},
		"no key file":         {cert, "none", a.file, "no such file"},
		"no authority file":   {cert, key, "none", "no such file"},
		"another's key":       {cert, otherKey, a.file, "does not match"},
		"no certificates":     {cert, key, junk, "holds no certificate"},
	} {
		c := testConfig("n1")
		c.TLSCert, c.TLSKey, c.TLSCA = tc.cert, tc.key, tc.ca
		if _, err := tryStart(t, c); !errors.Is(err, ErrTLS) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
