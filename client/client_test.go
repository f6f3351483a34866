package client_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
)

// connect makes a client of a cluster that ends with the test.
func connect(t clustertest.TB, c *clustertest.Cluster) *client.Client {
	t.Helper()
	return connectWith(t, c, func(*client.Config) {})
}

func patient(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestPutGetDelete(t *testing.T) {
	b := connect(t, clustertest.Start(t, clustertest.Options{})).Bucket("b")
	ctx := patient(t)
	for i := range 50 {
		key := fmt.Sprint("key", i)
		if o, err := b.Get(ctx, key); err != nil || o.Exists() || o.Context != nil {
			t.Fatalf("a key that was never written: %+v, %v", o, err)
		}
		w, err := b.Put(ctx, key, []byte("one"))
		if err != nil || w.Replicas < 2 || len(w.Context) == 0 {
			t.Fatalf("put: %+v, %v", w, err)
		}
		if _, err := b.Put(ctx, key, []byte("two"), client.After(w.Context)); err != nil {
			t.Fatalf("put with a context: %v", err)
		}
		o, err := b.Get(ctx, key)
		if err != nil {
			t.Fatalf("get: %v", err)
		}
		if v, err := o.One(); err != nil || string(v) != "two" {
			t.Fatalf("get: %q, %v", v, err)
		}
		if _, err := b.Delete(ctx, key, client.After(o.Context)); err != nil {
			t.Fatalf("delete: %v", err)
		}
		o, err = b.Get(ctx, key)
		if err != nil || o.Exists() || o.Context == nil {
			t.Fatalf("a deleted key has no value and a context: %+v, %v", o, err)
		}
		if _, err := o.One(); !errors.Is(err, client.ErrNotFound) {
			t.Fatalf("want ErrNotFound, have %v", err)
		}
	}
}

func TestSiblings(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	one, two := connect(t, c).Bucket("b"), connect(t, c).Bucket("b")
	ctx := patient(t)
	for _, w := range []struct {
		b *client.Bucket
		v string
	}{{one, "red"}, {two, "blue"}} {
		if _, err := w.b.Put(ctx, "k", []byte(w.v)); err != nil {
			t.Fatal(err)
		}
	}
	o, err := one.Get(ctx, "k")
	if err != nil || len(o.Values) != 2 {
		t.Fatalf("two blind writes: %+v, %v", o, err)
	}
	if _, err := o.One(); !errors.Is(err, client.ErrConflict) {
		t.Fatalf("want ErrConflict, have %v", err)
	}
	if _, err := one.Put(ctx, "k", []byte("purple"), client.After(o.Context)); err != nil {
		t.Fatal(err)
	}
	o, err = two.Get(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	if v, err := o.One(); err != nil || string(v) != "purple" {
		t.Fatalf("a write with the context of both leaves one: %+v", o)
	}
}
