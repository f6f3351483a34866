package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/storage/faulty"
)

// TestRefused: what is wrong with a request is told apart, and in words.
func TestRefused(t *testing.T) {
	cl := connect(t, clustertest.Start(t, clustertest.Options{}))
	b := cl.Bucket("b")
	ctx := patient(t)
	w, err := b.Put(ctx, "other", []byte("v"))
	if err != nil {
		t.Fatal(err)
	}
	cut := w.Context[:len(w.Context)-1]
	put := func(b *client.Bucket, key string, opts ...client.Option) error {
		_, err := b.Put(ctx, key, []byte("v"), opts...)
		return err
	}
	get := func(b *client.Bucket, key string, opts ...client.Option) error {
		_, err := b.Get(ctx, key, opts...)
		return err
	}
	for name, c := range map[string]struct {
		err  error
		want error
		text string
	}{
		"context of another key":    {put(b, "k", client.After(w.Context)), client.ErrContext, ""},
		"context of another bucket": {put(cl.Bucket("c"), "other", client.After(w.Context)), client.ErrContext, ""},
		"cut context":               {put(b, "other", client.After(cut)), client.ErrContext, ""},
		"garbage context":           {put(b, "k", client.After([]byte("garbage"))), client.ErrContext, ""},
		"empty key":                 {put(b, ""), client.ErrInvalid, "key is empty"},
		"empty bucket":              {get(cl.Bucket(""), "k"), client.ErrInvalid, "bucket is empty"},
		"long key":                  {get(b, strings.Repeat("k", 1025)), client.ErrInvalid, "at most 1024"},
		"long bucket":               {get(cl.Bucket(strings.Repeat("b", 256)), "k"), client.ErrInvalid, "at most 255"},
		"w over n":                  {put(b, "k", client.W(4)), client.ErrInvalid, "w is out of range: 4, allowed are 1 to n = 3"},
		"r below 0":                 {get(b, "k", client.R(-1)), client.ErrInvalid, "r is out of range"},
		"pr over n":                 {get(b, "k", client.PR(4)), client.ErrInvalid, "pr is out of range: 4"},
		"pw over n":                 {put(b, "k", client.PW(4)), client.ErrInvalid, "pw is out of range: 4"},
		"keys of an empty bucket":   {cl.Bucket("").Keys(ctx, func(string) error { return nil }), client.ErrInvalid, "bucket is empty"},
	} {
		if !errors.Is(c.err, c.want) || !strings.Contains(c.err.Error(), c.text) {
			t.Errorf("%s: %v, want %v: ... %s", name, c.err, c.want, c.text)
		}
	}
	_, err = b.Put(ctx, "k", make([]byte, 1<<20+1))
	var e *client.Error
	if !errors.Is(err, client.ErrTooLarge) || !errors.As(err, &e) || e.Node == "" || !strings.Contains(e.Text, "at most 1048576") {
		t.Errorf("a value of 1 MiB and a byte: %v", err)
	}
	if n := strings.Count(err.Error(), "too large"); n != 1 {
		t.Errorf("%q says %d times what is wrong", err, n)
	}
	if _, err := b.Put(ctx, "k", make([]byte, 40<<20)); !errors.Is(err, client.ErrTooLarge) {
		t.Errorf("a value that fits into no frame: %v", err)
	}
	if o, err := b.Get(ctx, "k"); err != nil || o.Exists() {
		t.Errorf("after nothing but refused writes: %+v, %v", o, err)
	}
	large := bytes.Repeat([]byte("v"), 1<<20)
	if _, err := b.Put(ctx, "large", large); err != nil {
		t.Errorf("a value of 1 MiB: %v", err)
	}
	if o, err := b.Get(ctx, "large"); err != nil || len(o.Values) != 1 || !bytes.Equal(o.Values[0].Value, large) {
		t.Errorf("a value of 1 MiB: %v", err)
	}
}

// TestEmptyValue is a value: Update hands it to the change, and not nil.
func TestEmptyValue(t *testing.T) {
	b := connect(t, clustertest.Start(t, clustertest.Options{})).Bucket("b")
	ctx := patient(t)
	if _, err := b.Put(ctx, "k", nil); err != nil {
		t.Fatal(err)
	}
	o, err := b.Get(ctx, "k")
	if v, oneErr := o.One(); err != nil || oneErr != nil || v == nil || len(v) != 0 {
		t.Errorf("get: %v, %v, %v", v, err, oneErr)
	}
	var seen []byte
	if _, err := b.Update(ctx, "k", nil, func(old []byte) ([]byte, error) { seen = old; return nil, nil }); err != nil || seen == nil {
		t.Errorf("update saw %v, %v", seen, err)
	}
	if o, err := b.Get(ctx, "k"); err != nil || o.Exists() || o.Context == nil {
		t.Errorf("a nil result deletes: %+v, %v", o, err)
	}
}

// TestUpdateErrors: those of the application's functions come back, and nothing
// is written.
func TestUpdateErrors(t *testing.T) {
	b := connect(t, clustertest.Start(t, clustertest.Options{})).Bucket("b")
	ctx := patient(t)
	boom := errors.New("boom")
	keep := func(old []byte) ([]byte, error) { return old, nil }
	for range 2 {
		if _, err := b.Put(ctx, "k", []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Update(ctx, "k", nil, keep); !errors.Is(err, client.ErrConflict) {
		t.Errorf("siblings without a resolver: %v", err)
	}
	if _, err := b.Update(ctx, "k", func([]client.Value) ([]byte, error) { return nil, boom }, keep); !errors.Is(err, boom) {
		t.Errorf("the resolver fails: %v", err)
	}
	if _, err := b.Update(ctx, "k", union, func([]byte) ([]byte, error) { return nil, boom }); !errors.Is(err, boom) {
		t.Errorf("the change fails: %v", err)
	}
	if o, err := b.Get(ctx, "k"); err != nil || len(o.Values) != 2 {
		t.Errorf("after that: %+v, %v", o, err)
	}
}

// TestBucketProperties: what a bucket was created with holds for its requests.
func TestBucketProperties(t *testing.T) {
	fast := bucket.Default()
	fast.Quorum.R, fast.Quorum.W, fast.TTL = 1, 3, time.Hour
	c := clustertest.Start(t, clustertest.Options{Buckets: []member.Bucket{{Name: "fast", Properties: fast}, lww("last")}})
	cl := connect(t, c)
	ctx := patient(t)
	w, err := cl.Bucket("fast").Put(ctx, "k", []byte("v"))
	if err != nil || w.Replicas != 3 {
		t.Errorf("W=3: %+v, %v", w, err)
	}
	o, err := cl.Bucket("fast").Get(ctx, "k")
	if err != nil || len(o.Values) != 1 || o.Values[0].Expires.Sub(o.Values[0].Time) != time.Hour || o.Values[0].Dot == "" {
		t.Errorf("ttl of an hour: %+v, %v", o, err)
	}
	for _, v := range []string{"first", "second"} {
		if _, err := cl.Bucket("last").Put(ctx, "k", []byte(v)); err != nil {
			t.Fatal(err)
		}
	}
	if o, err := cl.Bucket("last").Get(ctx, "k", client.R(3)); err != nil || len(o.Values) != 1 || string(o.Values[0].Value) != "second" {
		t.Errorf("last write wins: %+v, %v", o, err)
	}
}

// TestKeys lists every key once, deleted ones among them, also with a node down.
func TestKeys(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	cl := connect(t, c)
	b := cl.Bucket("b")
	ctx := patient(t)
	want := map[string]int{}
	for i := range 60 {
		key := fmt.Sprint("key", i)
		want[key] = 1
		if _, err := b.Put(ctx, key, []byte("v")); err != nil {
			t.Fatal(err)
		}
		if _, err := cl.Bucket("other").Put(ctx, "not"+key, []byte("v")); err != nil {
			t.Fatal(err)
		}
	}
	list := func() map[string]int {
		t.Helper()
		got := map[string]int{}
		if err := b.Keys(ctx, func(key string) error { got[key]++; return nil }); err != nil {
			t.Errorf("keys: %v", err)
		}
		return got
	}
	if got := list(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("listed %v", got)
	}
	// An error of the application ends the listing, also one that a node could
	// have given.
	calls := 0
	own := &client.Error{Kind: client.ErrUnavailable, Text: "the application's"}
	if err := b.Keys(ctx, func(string) error { calls++; return own }); err != error(own) || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
	if err := c.Nodes[2].Stop(ctx); err != nil {
		t.Error(err)
	}
	if got := list(); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("with a node down: %v", got)
	}
	if err := c.Nodes[1].Stop(ctx); err != nil {
		t.Error(err)
	}
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	if err := b.Keys(short, func(string) error { return nil }); !errors.Is(err, client.ErrUnavailable) {
		t.Errorf("with two nodes down: %v", err)
	}
}

// asker is an application's actor: it passes on what the client answers.
type asker struct {
	client  *actor.PID
	answers chan any
}

// Receive sends requests to the client and collects its answers.
func (a *asker) Receive(ctx actor.Context) {
	switch m := ctx.Message().(type) {
	case *client.Get, *client.Put, *client.Delete:
		ctx.Request(a.client, m)
	case *client.GetResult, *client.PutResult:
		a.answers <- m
	}
}

// TestMessages: the application's own actor system, and requests as messages.
func TestMessages(t *testing.T) {
	system := rt.NewSystem("nonhost", nil)
	t.Cleanup(system.Shutdown)
	var e engines
	c := clustertest.Start(t, clustertest.Options{Engine: e.make})
	cl := connectWith(t, c, func(config *client.Config) { config.System = system })
	app := &asker{client: cl.PID(), answers: make(chan any, 10)}
	pid := system.Root.Spawn(actor.PropsFromProducer(func() actor.Actor { return app }))
	t.Cleanup(func() { _ = system.Root.StopFuture(pid).Wait() })
	ask := func(m any) any {
		system.Root.Send(pid, m)
		select {
		case got := <-app.answers:
			return got
		case <-patient(t).Done():
			t.Fatalf("no answer to %T", m)
		}
		return nil
	}
	put, ok := ask(&client.Put{Bucket: "b", Key: "k", Value: []byte("v"), Tag: 1}).(*client.PutResult)
	if !ok || put.Err != nil || put.Tag != 1 || put.Written.Replicas < 2 {
		t.Fatalf("put: %+v", put)
	}
	get, ok := ask(&client.Get{Bucket: "b", Key: "k", Tag: "two", Options: []client.Option{client.R(3)}}).(*client.GetResult)
	if !ok || get.Err != nil || get.Tag != "two" || len(get.Object.Values) != 1 {
		t.Fatalf("get: %+v", get)
	}
	del, ok := ask(&client.Delete{Bucket: "b", Key: "k", Tag: 3, Options: []client.Option{client.After(get.Object.Context)}}).(*client.PutResult)
	if !ok || del.Err != nil || del.Tag != 3 {
		t.Fatalf("delete: %+v", del)
	}
	bad, ok := ask(&client.Get{Bucket: "", Key: "k", Tag: 4}).(*client.GetResult)
	if !ok || !errors.Is(bad.Err, client.ErrInvalid) || bad.Tag != 4 {
		t.Fatalf("a request that is refused: %+v", bad)
	}
	e.each((*faulty.Engine).HoldSyncs)
	defer e.each((*faulty.Engine).ReleaseSyncs)
	late, ok := ask(&client.Put{Bucket: "b", Key: "k", Tag: 5, Timeout: 100 * time.Millisecond}).(*client.PutResult)
	if !ok || !errors.Is(late.Err, client.ErrUnknown) || late.Tag != 5 {
		t.Fatalf("a write whose time is over: %+v", late)
	}
	system.Root.Send(pid, &client.Put{Bucket: "b", Key: "under way"})
	eventually(t, "the write is visible", func() bool {
		o, err := cl.Bucket("b").Get(context.Background(), "under way")
		return err == nil && o.Exists()
	})
	if err := cl.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if m, ok := (<-app.answers).(*client.PutResult); !ok || !errors.Is(m.Err, client.ErrClosed) {
		t.Errorf("under way at the close: %+v", m)
	}
	if _, err := client.New(client.Config{Nodes: c.Addresses, Cluster: c.Name, System: system, Timeout: 1, RingInterval: 1}); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a second client in one system: %v", err)
	}
}

func TestConfig(t *testing.T) {
	if err := client.Default().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	_, err := client.New(client.Config{Nodes: []string{"nowhere"}})
	for _, want := range []string{"nowhere", "Cluster is empty", "Timeout is 0s", "RingInterval is 0s"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if _, err := client.New(client.Config{Cluster: "c", Timeout: 1, RingInterval: 1}); err == nil || !strings.Contains(err.Error(), "no node is named") {
		t.Errorf("no nodes: %v", err)
	}
}

// TestWrongCluster: a node of another cluster is not used, and the error says so.
func TestWrongCluster(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{Nodes: 1})
	cl := connectWith(t, c, func(config *client.Config) { config.Cluster = "another" })
	_, err := cl.Bucket("b").Get(patient(t), "k", client.Timeout(500*time.Millisecond))
	if !errors.Is(err, client.ErrUnavailable) || !strings.Contains(err.Error(), "cluster") {
		t.Errorf("get: %v", err)
	}
}
