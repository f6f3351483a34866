package bootstrap

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/dynactor/dynactor/dynamo/founding"
)

// fakeAgent answers as no agent should. It takes the place of the network, so
// that time in the bubble passes at once.
type fakeAgent struct {
	// list answers the query for instances; pass, register and key the calls of
	// those names. nil is the answer of an agent that works and is empty.
	list, pass, register, key func(*http.Request) (*http.Response, error)

	mu    sync.Mutex
	calls map[string]int
	hosts map[string]bool
}

// RoundTrip implements http.RoundTripper.
func (f *fakeAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	name, answer, fallback := "other", (func(*http.Request) (*http.Response, error))(nil), reply(200, 1, "true")
	switch p := r.URL.Path; {
	case strings.HasPrefix(p, "/v1/health/service/"):
		name, answer, fallback = "list", f.list, reply(200, 1, "[]")
	case strings.HasPrefix(p, "/v1/agent/check/update/"):
		name, answer = "pass", f.pass
	case p == "/v1/agent/service/register":
		name, answer = "register", f.register
	case strings.HasPrefix(p, "/v1/kv/"):
		name, answer, fallback = "key", f.key, reply(404, 1, "")
	}
	f.mu.Lock()
	f.calls[name]++
	f.hosts[r.URL.Host] = true
	f.mu.Unlock()
	if answer == nil {
		answer = fallback
	}
	resp, err := answer(r)
	if err == nil && r.Context().Err() != nil {
		return nil, r.Context().Err()
	}
	return resp, err
}

func (f *fakeAgent) count(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[name]
}

// reply is an answer that comes after the time asked for, if the index is the
// one that the caller has, as with a blocking query.
func reply(status int, index uint64, body string) func(*http.Request) (*http.Response, error) {
	return replyFrom(status, index, func() io.Reader { return strings.NewReader(body) })
}

func replyFrom(status int, index uint64, body func() io.Reader) func(*http.Request) (*http.Response, error) {
	return func(r *http.Request) (*http.Response, error) {
		if q := r.URL.Query(); index > 0 && q.Get("index") == strconv.FormatUint(index, 10) {
			ms, err := strconv.Atoi(strings.TrimSuffix(q.Get("wait"), "ms"))
			if err != nil {
				return nil, err
			}
			wait(r.Context(), time.Duration(ms)*time.Millisecond)
		}
		h := http.Header{}
		if index > 0 {
			h.Set("X-Consul-Index", strconv.FormatUint(index, 10))
		}
		return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(body()), Request: r}, nil
	}
}

// silence answers nothing until the caller gives up.
func silence(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

// own is this node's own instance in a list, entry any other.
var own = entry("dynactor-test-n1", "127.0.0.1", 7800)

func entry(id, host string, port int) string {
	return fmt.Sprintf(`{"Node":{"Address":"10.0.0.1"},"Service":{"ID":%q,"Address":%q,"Port":%d,"Meta":{"store":"%032x"}}}`, id, host, port, 1)
}

// endless is a body that repeats a text for ever.
type endless struct {
	text string
	at   int
}

func (e *endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = e.text[e.at%len(e.text)]
		e.at++
	}
	return len(p), nil
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

const secret = "c0ffee00-1111-2222-3333-444444444444"

// fakeRun is discovery with a fake agent, which has run for some time.
type fakeRun struct {
	*consul
	agent *fakeAgent
	log   *testLog
	seeds [][]string
}

// runFake lets discovery run with the agent for a time of the bubble, calls
// look, and ends it.
func runFake(t *testing.T, f *fakeAgent, d time.Duration, look func(*fakeRun)) {
	t.Helper()
	t.Setenv(api.HTTPTokenEnvName, secret)
	synctest.Test(t, func(t *testing.T) {
		run := &fakeRun{agent: f, log: &testLog{}}
		f.calls, f.hosts = map[string]int{}, map[string]bool{}
		run.consul = testConsul(t, "127.0.0.1:8500", "n1")
		run.consul.log = slog.New(slog.NewTextHandler(run.log, nil))
		run.client.Load().http.Transport = boundedTransport{f}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- run.Run(ctx, func(a []string) { run.seeds = append(run.seeds, a) })
		}()
		time.Sleep(d)
		synctest.Wait()
		look(run)
		cancel()
		stopping := time.Now()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
		if took := time.Since(stopping); took > run.times.leave {
			t.Errorf("stopping took %v", took)
		}
		if strings.Contains(run.log.String(), secret) {
			t.Errorf("the token is in the log:\n%s", run.log)
		}
	})
}

func TestConsulFakeAnswers(t *testing.T) {
	var many strings.Builder
	many.WriteString("[" + own)
	for i := range 10_000 {
		many.WriteString("," + entry("x", fmt.Sprintf("10.1.%d.%d", i/250, i%250+1), 7800))
	}
	many.WriteString("]")
	strange := []string{
		own, "null", "{}", `{"Service":null}`, entry("a", "0.0.0.0", 1), entry("a", "::", 1), entry("a", "224.0.0.1", 1),
		entry("a", "h", 0), entry("a", "h", 70000), entry("a", "h", -1), entry("a", "a b", 1), entry("a", "a/b", 1), entry("a", "a:b", 1),
		entry("a", strings.Repeat("h", 300), 1), entry("a", "h@evil", 1), entry("b", "", 9), entry("c", "fe80::1", 9), entry("d", "good.example", 9),
		entry("e", "good.example", 9),
	}
	for _, tc := range []struct {
		name string
		list func(*http.Request) (*http.Response, error)
		// problem and incomplete are parts of the status; seeds the last list.
		problem, incomplete string
		seeds               int
	}{
		{"works", reply(200, 5, "["+own+"]"), "", "", 1},
		{"silent", silence, "deadline exceeded", "deadline exceeded", 0},
		{"endless", replyFrom(200, 5, func() io.Reader { return io.MultiReader(strings.NewReader("["), &endless{text: own + ","}) }), errAnswerSize.Error(), errAnswerSize.Error(), 0},
		{"endless error", replyFrom(500, 5, func() io.Reader { return &endless{text: "oh "} }), "status 500", "status 500", 0},
		{"not json", reply(200, 5, "<html>"), "invalid character", "invalid character", 0},
		{"wrong json", reply(200, 5, `{"a":1}`), "cannot unmarshal", "cannot unmarshal", 0},
		{"empty body", reply(200, 5, ""), "EOF", "EOF", 0},
		{"null", reply(200, 5, "null"), "does not show this node", "does not show this node", 0},
		{"empty", reply(200, 5, "[]"), "does not show this node", "does not show this node", 0},
		{"others only", reply(200, 5, "["+entry("x", "h", 1)+"]"), "does not show this node", "does not show this node", 1},
		{"error with the token", reply(500, 5, "token "+secret+" is odd"), "[secret] is odd", "[secret] is odd", 0},
		{"forbidden", reply(403, 5, "Permission denied"), ErrConsulDenied.Error(), ErrConsulDenied.Error(), 0},
		{"redirect", func(r *http.Request) (*http.Response, error) {
			resp, err := reply(302, 5, "")(r)
			resp.Header.Set("Location", "http://elsewhere.example/")
			return resp, err
		}, "status 302", "status 302", 0},
		{"no index", reply(200, 0, "["+own+"]"), "", "waiting for consul to show this node", 1},
		{"ten thousand", reply(200, 5, many.String()), "", "lists more than 1000", 1000},
		{"strange entries", reply(200, 5, "["+strings.Join(strange, ",")+"]"), "", "", 4},
	} {
		t.Run(tc.name, func(t *testing.T) {
			d := time.Minute
			if tc.name == "endless" {
				d = 5 * time.Second // 8 MiB are read each time
			}
			runFake(t, &fakeAgent{list: tc.list}, d, func(run *fakeRun) {
				s := run.Status()
				if (tc.problem == "") != (s.Problem == "") || !strings.Contains(s.Problem, tc.problem) {
					t.Errorf("problem %q, want %q", s.Problem, tc.problem)
				}
				if (tc.incomplete == "") != (s.Incomplete == "") || !strings.Contains(s.Incomplete, tc.incomplete) {
					t.Errorf("incomplete %q, want %q", s.Incomplete, tc.incomplete)
				}
				got := 0
				if len(run.seeds) > 0 {
					got = len(run.seeds[len(run.seeds)-1])
				}
				if got != tc.seeds {
					t.Errorf("seeds %v, want %d", run.seeds, tc.seeds)
				}
				if n := run.agent.count("list"); n > 150 {
					t.Errorf("asked %d times in a minute", n)
				}
				if lines := strings.Count(run.log.String(), "\n"); lines > 3 {
					t.Errorf("%d lines of log:\n%s", lines, run.log)
				}
				if run.agent.hosts["elsewhere.example"] {
					t.Error("followed a redirect, token and all")
				}
			})
		})
	}
}

// TestConsulFakeIndex checks where blocking queries begin anew.
func TestConsulFakeIndex(t *testing.T) {
	var asked []string
	answers := []func(*http.Request) (*http.Response, error){
		reply(200, 100, "["+own+"]"), reply(200, 103, "["+own+"]"), reply(200, 7, "["+own+"]"), reply(200, 8, "["+own+"]"),
		reply(500, 0, "no leader"), reply(200, 9, "["+own+"]"),
	}
	f := &fakeAgent{}
	f.list = func(r *http.Request) (*http.Response, error) {
		asked = append(asked, r.URL.Query().Get("index"))
		return answers[min(len(asked), len(answers))-1](r)
	}
	runFake(t, f, 30*time.Second, func(run *fakeRun) {
		got := strings.Join(asked[:min(7, len(asked))], ",")
		// 103 to 7: an agent that lost its data; 8 to an error.
		if want := ",100,103,,8,,9"; got != want {
			t.Errorf("asked from %q, want %q", got, want)
		}
		if s := run.Status(); s.Problem != "" || s.Incomplete != "" {
			t.Errorf("status %+v", s)
		}
	})
}

// TestConsulFakeEmptied: a list that was good and is empty now takes no seed
// away, and is not believed.
func TestConsulFakeEmptied(t *testing.T) {
	began := false
	f := &fakeAgent{list: func(r *http.Request) (*http.Response, error) {
		if !began {
			began = true
			return reply(200, 3, "["+own+","+entry("x", "h", 1)+"]")(r)
		}
		return reply(200, 4, "[]")(r)
	}}
	runFake(t, f, time.Minute, func(run *fakeRun) {
		if len(run.seeds) != 1 || len(run.seeds[0]) != 2 {
			t.Errorf("seeds %v", run.seeds)
		}
		if s := run.Status(); s.Incomplete == "" || !strings.Contains(s.Problem, "does not show this node") {
			t.Errorf("status %+v", s)
		}
	})
}

// TestConsulFakeForgets: an agent that takes registrations and forgets them is
// not asked without end.
func TestConsulFakeForgets(t *testing.T) {
	runFake(t, &fakeAgent{pass: reply(404, 1, "Unknown check")}, time.Minute, func(run *fakeRun) {
		if n := run.agent.count("register"); n < 10 || n > 200 {
			t.Errorf("registered %d times in a minute", n)
		}
		if s := run.Status(); !strings.Contains(s.Problem, "Unknown check") || s.Incomplete == "" {
			t.Errorf("status %+v", s)
		}
	})
}

// TestConsulFakeLogs: an hour of failures is a few lines.
func TestConsulFakeLogs(t *testing.T) {
	var calls atomic.Int64 // of several loops at once
	fail := func(r *http.Request) (*http.Response, error) {
		return nil, fmt.Errorf("dial from port %d: refused", calls.Add(1)) // differs each time
	}
	f := &fakeAgent{list: fail, pass: fail, register: fail, key: fail}
	runFake(t, f, time.Hour, func(run *fakeRun) {
		run.Confirm(founding.ClusterID{1}, "n1")
		time.Sleep(time.Hour)
		if lines := strings.Count(run.log.String(), "\n"); lines < 3 || lines > 4 {
			t.Errorf("%d lines of log:\n%s", lines, run.log)
		}
		if n := f.count("register"); n < 3600 || n > 4*3600 {
			t.Errorf("tried %d times in two hours, want about one a second", n)
		}
	})
}

// TestConsulFakeElect: an election says who won only when it knows.
func TestConsulFakeElect(t *testing.T) {
	entry := func(id byte, by string) string {
		raw := fmt.Sprintf(`{"cluster_id":"%02x%030x","founder":%q}`, id, 0, by)
		return fmt.Sprintf(`[{"Key":"dynactor/test/founder","Value":%q}]`, b64(raw))
	}
	put := func(get, cas func(*http.Request) (*http.Response, error)) func(*http.Request) (*http.Response, error) {
		return func(r *http.Request) (*http.Response, error) {
			if r.Method == http.MethodPut {
				return cas(r)
			}
			return get(r)
		}
	}
	for _, tc := range []struct {
		name string
		key  func(*http.Request) (*http.Response, error)
		won  bool
		by   string
		err  string
	}{
		{"won", put(reply(404, 1, ""), reply(200, 0, "true")), true, "n1", ""},
		{"own id is there", put(reply(200, 1, entry(1, "n1")), silence), true, "n1", ""},
		{"another's is there", put(reply(200, 1, entry(2, "n2")), silence), false, "n2", ""},
		{"own name, another id", put(reply(200, 1, entry(2, "n1")), silence), false, "", "another data directory"},
		{"always too late", put(reply(404, 1, ""), reply(200, 0, "false")), false, "", "changes too fast"},
		{"silent", silence, false, "", "deadline exceeded"},
		{"silent write", put(reply(404, 1, ""), silence), false, "", "deadline exceeded"},
		{"no leader", put(reply(404, 1, ""), reply(500, 0, "No cluster leader")), false, "", "No cluster leader"},
		{"not json", put(reply(200, 1, `[{"Value":"`+b64("x")+`"}]`), silence), false, "", ErrConsulEntry.Error()},
		{"short id", put(reply(200, 1, `[{"Value":"`+b64(`{"cluster_id":"00","founder":"n2"}`)+`"}]`), silence), false, "", ErrConsulEntry.Error()},
		{"bad name", put(reply(200, 1, entry(2, "a b")), silence), false, "", ErrConsulEntry.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			runFake(t, &fakeAgent{key: tc.key}, 0, func(run *fakeRun) {
				ctx, cancel := context.WithTimeout(context.Background(), electTimeout)
				defer cancel()
				won, by, err := run.Elect(ctx, founding.ClusterID{1})
				if won != tc.won || string(by) != tc.by || (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
					t.Errorf("won %v, founder %q, error %v", won, by, err)
				}
			})
		})
	}
}

// TestConsulFakeRewrite: the key is put back as often as it is lost, and a
// write that fails is tried again.
func TestConsulFakeRewrite(t *testing.T) {
	writes := 0
	f := &fakeAgent{key: func(r *http.Request) (*http.Response, error) {
		if r.Method != http.MethodPut {
			return reply(404, 1, "")(r)
		}
		if writes++; writes < 5 {
			return reply(500, 0, "No cluster leader")(r)
		}
		return reply(200, 0, "true")(r)
	}}
	runFake(t, f, time.Second, func(run *fakeRun) {
		if writes != 0 {
			t.Error("wrote the key before there was a cluster")
		}
		run.Confirm(founding.ClusterID{1}, "n1")
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := run.Status(); writes < 5 || strings.Contains(s.Problem, topicFounder) {
			t.Errorf("%d writes, problem %q", writes, s.Problem)
		}
	})
}

func TestConsulErrorsAreShortAndSafe(t *testing.T) {
	c := &consulClient{secrets: []string{"s3cret/+"}}
	long := c.explain(api.StatusError{Code: 500, Body: strings.Repeat("x\xff", 4000) + "s3cret/+"})
	if len(long.Error()) > maxConsulError+10 || strings.ContainsRune(long.Error(), '\xff') {
		t.Errorf("%d bytes: %q", len(long.Error()), long)
	}
	cause := errors.New(`Get "http://h/?token=s3cret%2F%2B": s3cret/+`)
	if err := c.explain(cause); strings.Contains(err.Error(), "s3cret") || !errors.Is(err, cause) {
		t.Errorf("%v", err)
	}
	if c.explain(nil) != nil {
		t.Error("no error became one")
	}
}

func TestConsulAddresses(t *testing.T) {
	for address, ok := range map[string]bool{
		"127.0.0.1:8500": true, "http://h:8500": true, "https://h:8501/prefix": true, "[::1]:8500": true, "unix:///run/consul": true,
		"h": false, "": false, "ftp://h:1": false, "http://user:pw@h:1": false, "user:pw@h:1": false, ":8500": false, "h:": false, "unix://": false,
	} {
		if err := checkConsulAddress(address); (err == nil) != ok {
			t.Errorf("%q: %v", address, err)
		}
	}
}

func TestConsulMisconfigured(t *testing.T) {
	for env, value := range map[string]string{
		api.HTTPTokenFileEnvName: "/does/not/exist", api.HTTPCAFile: "/does/not/exist", api.HTTPClientCert: "/does/not/exist",
	} {
		t.Run(env, func(t *testing.T) {
			t.Setenv(env, value)
			c := testConfig("n1")
			c.Consul = "127.0.0.1:1"
			if n, err := tryStart(t, c); err == nil || !strings.Contains(err.Error(), "consul") || n != nil {
				t.Errorf("started with %s=%s: %v", env, value, err)
			}
		})
	}
}
