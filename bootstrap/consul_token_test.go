package bootstrap

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/consul/api"

	"github.com/dynactor/dynactor/bootstrap/consultest"
)

// grant makes a token that the rules hold for.
func grant(t *testing.T, a *consultest.Agent, name, rules string) string {
	t.Helper()
	acl := a.Management().ACL()
	if _, _, err := acl.PolicyCreate(&api.ACLPolicy{Name: name, Rules: rules}, nil); err != nil {
		t.Fatalf("policy: %v", err)
	}
	token, _, err := acl.TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{Name: name}}}, nil)
	if err != nil {
		t.Fatalf("token: %v", err)
	}
	return token.SecretID
}

// allNeeded are the rules of a token with which a node can do all it does.
const allNeeded = `
service "dynactor-test" { policy = "write" }
node_prefix "" { policy = "read" }
key_prefix "dynactor/test/" { policy = "write" }`

// TestConsulTokens: what a token may not see must not be taken for nothing.
func TestConsulTokens(t *testing.T) {
	a := consultest.Start(t, consultest.Options{ACL: true})
	good := grant(t, a, "good", allNeeded)
	for _, tc := range []struct {
		name, token, says string
	}{
		{"missing", "", "permission denied"},
		{"unknown", "11111111-2222-3333-4444-555555555555", "permission denied"},
		{"may not read nodes", grant(t, a, "hidden", `
service "dynactor-test" { policy = "write" }
key_prefix "dynactor/test/" { policy = "write" }`), "does not show this node"},
		{"may not write keys", grant(t, a, "keyless", `
service "dynactor-test" { policy = "write" }
node_prefix "" { policy = "read" }`), "permission denied"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(api.HTTPTokenEnvName, tc.token)
			n := start(t, consulConfig(a, "test", "n1", 1))
			n.says(tc.says)
			if n.Document() != nil || founder(t, a, "test") != (founderEntry{}) {
				t.Fatal("founded a cluster that it could not know to be the only one")
			}
			hides(t, n, tc.token)
		})
	}
	t.Run("right", func(t *testing.T) {
		t.Setenv(api.HTTPTokenEnvName, good)
		n := consulCluster(t, a, "test", 1)[0]
		hides(t, n, good)
		n.stop()
		if len(passing(t, a, "test")) != 0 {
			t.Error("still registered")
		}
	})
}

// hides checks that neither log nor health show a token.
func hides(t *testing.T, n *testNode, token string) {
	t.Helper()
	status, err := json.Marshal(n.status())
	if err != nil {
		t.Fatal(err)
	}
	if token != "" && (strings.Contains(n.log.String(), token) || strings.Contains(string(status), token)) {
		t.Error("the token is shown")
	}
}

// TestConsulTokenFile: a file with a new token is read again.
func TestConsulTokenFile(t *testing.T) {
	a := consultest.Start(t, consultest.Options{ACL: true})
	good := grant(t, a, "good", allNeeded)
	file := filepath.Join(t.TempDir(), "token")
	write := func(token string) {
		t.Helper()
		if err := os.WriteFile(file+".new", []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(file+".new", file); err != nil {
			t.Fatal(err)
		}
	}
	const bad = "11111111-2222-3333-4444-555555555555"
	write(bad)
	t.Setenv(api.HTTPTokenFileEnvName, file)
	n := start(t, consulConfig(a, "test", "n1", 1))
	n.says("permission denied")
	write(good)
	n.ready()
	hides(t, n, good)
	hides(t, n, bad)

	t.Setenv(api.HTTPTokenFileEnvName, file+".missing")
	if _, err := tryStart(t, consulConfig(a, "test", "n2", 1)); err == nil || !strings.Contains(err.Error(), "token file") {
		t.Errorf("a token file that is not there: %v", err)
	}
}
