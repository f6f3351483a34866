package bootstrap

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dynactor/dynactor/actors/rt"
)

// lines are what was logged, as JSON.
func lines(t *testing.T, log *testLog) (out []map[string]any) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSuffix(log.String(), "\n"), "\n") {
		var event map[string]any
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		out = append(out, event)
	}
	return out
}

func newLog(t *testing.T, level, format string) (*Log, *testLog) {
	t.Helper()
	to := &testLog{}
	log, err := NewLogger(to, level, format)
	if err != nil {
		t.Fatal(err)
	}
	return log, to
}

// TestLogWithoutFormat: what is no terminal gets JSON, one event a line whatever is in it.
func TestLogWithoutFormat(t *testing.T) {
	log, to := newLog(t, "info", "")
	log.Info("two\nlines", "key", "a\nb\x1b[2J\xff")
	log.Close()
	if all := lines(t, to); len(all) != 1 || all[0]["msg"] != "two\nlines" {
		t.Errorf("%v", all)
	}
	log, to = newLog(t, "info", "text")
	log.Info("two\nlines", "key", "a\nb\x1b[2J")
	if s := to.String(); strings.Count(s, "\n") != 1 || strings.Contains(s, "\x1b") {
		t.Errorf("%q", s)
	}
}

// TestLogLevelChanges while the node runs, also for loggers that were made of it before.
func TestLogLevelChanges(t *testing.T) {
	log, to := newLog(t, "warn", "json")
	of := slog.New((&rt.Failures{}).Handler(log.With("node", "n1").Handler()))
	of.Info("unheard")
	log.Level.Set(slog.LevelDebug)
	of.Debug("heard")
	log.Level.Set(slog.LevelError)
	of.Warn("unheard")
	if all := lines(t, to); len(all) != 1 || all[0]["msg"] != "heard" || all[0]["node"] != "n1" {
		t.Errorf("%v", all)
	}
}

// TestRepeatsAreCounted: five of the same in ten seconds are logged, and how many more there were. What kept errors sees
// each of them.
func TestRepeatsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, to := newLog(t, "info", "json")
		var kept rt.Failures
		node := slog.New(kept.Handler(log.With("node", "n1").Handler()))
		for i := range 1000 {
			node.Error("it broke", "disk", "sda")
			if i < 7 {
				node.Warn("it broke")
				node.Info(fmt.Sprint("something else ", i))
			}
			node.Debug("it broke")
		}
		if all := lines(t, to); len(all) != 5+5+7 {
			t.Fatalf("%d lines", len(all))
		}
		if all, _ := kept.List(0); len(all) != 1 || all[0].Times != 1000 {
			t.Errorf("kept %+v", all)
		}
		byLevel, suppressed := log.Counts()
		if suppressed != 995+2 || byLevel["error"] != 1000 || byLevel["warn"] != 7 || byLevel["info"] != 7 || byLevel["debug"] != 0 {
			t.Errorf("%v, %d suppressed", byLevel, suppressed)
		}
		time.Sleep(repeatsWithin)
		synctest.Wait()
		told := map[string]float64{}
		for _, event := range lines(t, to)[17:] {
			if event["message"] != "it broke" || event["node"] != "n1" {
				t.Errorf("%v", event)
			}
			told[event["level"].(string)] = event["more"].(float64)
		}
		if len(told) != 2 || told["ERROR"] != 995 || told["WARN"] != 2 {
			t.Errorf("told %v", told)
		}
		for range 6 { // the next ten seconds
			node.Error("it broke")
		}
		log.Close()
		all := lines(t, to)[19:]
		if len(all) != 6 || all[4]["msg"] != "it broke" || all[5]["more"] != 1.0 {
			t.Errorf("%v", all)
		}
		for range 9 {
			node.Error("it broke")
		}
		if n := len(lines(t, to)); n != 19+6+9 {
			t.Errorf("%d lines after the end", n)
		}
	})
}

// TestManyMessages: memory is bounded, and what is not watched is logged.
func TestManyMessages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log, to := newLog(t, "info", "json")
		for i := range maxRepeats {
			log.Info(fmt.Sprint("message ", i))
		}
		for range 20 {
			log.Info("one more")
		}
		if n := len(lines(t, to)); n != maxRepeats+20 || len(log.limit.windows) != maxRepeats {
			t.Errorf("%d lines, %d watched", n, len(log.limit.windows))
		}
		time.Sleep(repeatsWithin)
		for range 20 {
			log.Info("one more")
		}
		if n := len(lines(t, to)); n != maxRepeats+20+repeatsLogged || len(log.limit.windows) != 1 {
			t.Errorf("%d lines, %d watched", n, len(log.limit.windows))
		}
		log.Close()
	})
}

// TestLogHasNoSecrets: neither the log, with all there is to say, nor what is served tells of tokens, passwords or keys, also
// when they are refused.
func TestLogHasNoSecrets(t *testing.T) {
	agent := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		if _, err := fmt.Fprint(w, "Permission denied"); err != nil {
			t.Error(err)
		}
	}))
	defer agent.Close()
	const token, password = "5ec2e700-0000-4000-8000-00000000beef", "correct-horse"
	t.Setenv("CONSUL_HTTP_TOKEN", token)
	t.Setenv("CONSUL_HTTP_AUTH", "user:"+password)
	a := newAuthority(t)
	c := testConfig("n1")
	c.Consul, c.Advertise, c.HTTP = strings.TrimPrefix(agent.URL, "http://"), "127.0.0.1:7800", "127.0.0.1:0"
	c.TLSCA = a.file
	c.TLSCert, c.TLSKey = a.issue("n1")
	key, err := os.ReadFile(c.TLSKey)
	if err != nil {
		t.Fatal(err)
	}
	n := start(t, c)
	n.says("Permission denied")
	said := n.log.String()
	for _, path := range []string{"/readyz", "/metrics"} {
		_, _, body := ask(t, http.MethodGet, "http://"+n.HTTPAddr()+path)
		said += body
	}
	secrets := append(strings.Fields(string(key))[4:6], token, password)
	for _, secret := range secrets {
		if len(secret) < 10 || strings.Contains(said, secret) {
			t.Errorf("%q is shown", secret)
		}
	}
}
