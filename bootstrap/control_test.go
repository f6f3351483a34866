package bootstrap

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/client"
)

// as is a client with a certificate for a name, or with none.
func (a *authority) as(t *testing.T, n *testNode, name string) *client.Client {
	t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	config := &tls.Config{RootCAs: pool}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(a.sign(name))
		if err != nil {
			t.Fatal(err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return tlsClient(t, n, config)
}

// controls are what changes a node, with what nobody else would set or restart.
func controls(ctx context.Context, c *client.Client, node string) map[string]func() error {
	return map[string]func() error{
		"set":     func() error { _, err := c.Cluster().Set(ctx, node, "max-requests", "77"); return err },
		"restart": func() error { _, err := c.Cluster().Restart(ctx, node, "detector"); return err },
		"kill":    func() error { _, err := c.Cluster().Kill(ctx, node, "vnode/1"); return err },
		"fate":    func() error { _, err := c.Cluster().Fate(ctx, node, "vnode/2", true); return err },
	}
}

// untouched reports whether nothing of controls was carried out.
func untouched(t *testing.T, ctx context.Context, c *client.Client, n *testNode) {
	t.Helper()
	settings, err := c.Cluster().Settings(ctx, n.config.Name)
	if err != nil {
		t.Fatal(err)
	}
	if slices.ContainsFunc(settings, func(s client.Setting) bool { return s.Name == "max-requests" && s.Value == "77" }) {
		t.Errorf("a setting was changed: %+v", settings)
	}
	for _, k := range n.registry.Kinds() {
		if k.Restarts != 0 {
			t.Errorf("%d restarts of %s", k.Restarts, k.Kind)
		}
	}
	if faults, _, err := c.Cluster().Errors(ctx, n.config.Name, 0); err != nil || len(faults) > 0 {
		t.Errorf("errors: %+v, %v", faults, err)
	}
	if strings.Contains(n.log.String(), "an operator changes the node") {
		t.Error("the log says that the node was changed")
	}
}

// TestControlTakesAnOperator: over TLS a node is changed by those whose certificate names an operator,
// by no other client, and by nobody where it was not started so. All may look.
func TestControlTakesAnOperator(t *testing.T) {
	a := newAuthority(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for name, allowed := range map[string]bool{
		"operator.ann": true, "operator": true, "operators.ann": false, "client.bob": false, "node.n1": false, "ann.operator": false, "": false,
	} {
		t.Run("as "+name, func(t *testing.T) {
			c := testConfig("n1")
			c.Found, c.ConsoleControl = true, true
			a.secure(&c, c.Name)
			n := start(t, c)
			n.ready()
			cl := a.as(t, n, name)
			for what, do := range controls(ctx, cl, "n1") {
				switch err := do(); {
				case allowed && err != nil:
					t.Errorf("%s: %v", what, err)
				case !allowed && (!errors.Is(err, client.ErrRefused) || !strings.Contains(err.Error(), "takes a certificate of the cluster's authority that names operator or operator.NAME")):
					t.Errorf("%s: %v", what, err)
				}
			}
			if !allowed {
				untouched(t, ctx, cl, n)
				return
			}
			eventually(t, "both actors being started again", func() bool {
				restarts := map[string]uint64{}
				for _, k := range n.registry.Kinds() {
					restarts[k.Kind] = k.Restarts
				}
				return restarts["detector"] == 1 && restarts["vnode"] == 1
			})
			for _, what := range []string{"what=set setting=max-requests", "what=restart actor=detector", "what=kill actor=vnode/1"} {
				if !strings.Contains(n.log.String(), what) {
					t.Errorf("no %q in the log", what)
				}
			}
		})
	}
	t.Run("not started so", func(t *testing.T) {
		c := testConfig("n1")
		c.Found = true
		a.secure(&c, c.Name)
		n := start(t, c)
		n.ready()
		cl := a.as(t, n, "operator.ann")
		for what, do := range controls(ctx, cl, "n1") {
			if err := do(); !errors.Is(err, client.ErrRefused) || !strings.Contains(err.Error(), "n1 does not let its actors and settings be changed: it was not started with --console-control") {
				t.Errorf("%s: %v", what, err)
			}
		}
		untouched(t, ctx, cl, n)
	})
}

// TestSetLogLevel: what a node logs follows the setting at once, and back.
func TestSetLogLevel(t *testing.T) {
	c := testConfig("n1")
	c.Found, c.ConsoleControl, c.LogLevel = true, true, "info"
	n := start(t, c)
	n.ready()
	cl := newClientWith(t, func(*client.Config) {}, n)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	set := func(level string) {
		t.Helper()
		if _, err := cl.Cluster().Set(ctx, "n1", "log-level", level); err != nil {
			t.Fatal(err)
		}
	}
	logged := func(text string) bool { return strings.Contains(n.log.String(), text) }
	// is checks what the node's log takes at a level; each text is logged once.
	is := func(level string, debug, info bool) {
		t.Helper()
		n.log.reset()
		n.Node.log.Debug("a detail " + level)
		n.Node.log.Info("an event " + level)
		if logged("a detail "+level) != debug || logged("an event "+level) != info {
			t.Errorf("at %s: debug is %v, info %v, in\n%s", level, logged("a detail "+level), logged("an event "+level), n.log)
		}
	}
	is("info, from the start", false, true)
	set("debug")
	is("debug", true, true)
	// Not only what the test logs: a stranger who says nothing is a detail.
	stranger, err := net.Dial("tcp", n.Addr())
	if err != nil {
		t.Fatal(err)
	}
	address := stranger.LocalAddr().String()
	if err := stranger.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stranger being logged", func() bool { return logged(`msg="no hello"`) && logged(address) })
	set("info")
	is("info", false, true)
	n.log.reset()
	set("error")
	if !logged("level=ERROR") || !logged("what=set setting=log-level was=info is=error") {
		t.Errorf("who hides the log from now on is not in it:\n%s", n.log)
	}
	is("error", false, false)
}
