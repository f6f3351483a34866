package client_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
	"github.com/dynactor/dynactor/dynamo/member"
)

// exampleTB lets an example start a cluster as a test does.
type exampleTB struct{ cleanups []func() }

func (*exampleTB) Helper()             {}
func (*exampleTB) Failed() bool        { return false }
func (*exampleTB) Logf(string, ...any) {}
func (t *exampleTB) Cleanup(f func())  { t.cleanups = append(t.cleanups, f) }
func (t *exampleTB) Fatalf(f string, a ...any) {
	fmt.Printf(f+"\n", a...)
	os.Exit(1)
}

// end undoes what was started, last first.
func (t *exampleTB) end() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}

// exampleClient starts a cluster with some buckets and a client of it.
func exampleClient(t *exampleTB, buckets ...member.Bucket) *client.Client {
	return connect(t, clustertest.Start(t, clustertest.Options{Buckets: buckets}))
}

// cart is a shopping cart: how many of each item.
type cart map[string]int

func decodeCart(raw []byte) (cart, error) {
	c := cart{}
	if raw == nil {
		return c, nil
	}
	return c, json.Unmarshal(raw, &c)
}

// mergeCarts is the paper's: no added item is ever lost, and therefore an item
// that was removed on one side may come back (§ 4.4).
func mergeCarts(siblings []client.Value) ([]byte, error) {
	merged := cart{}
	for _, s := range siblings {
		c, err := decodeCart(s.Value)
		if err != nil {
			return nil, err
		}
		for item, n := range c {
			merged[item] = max(merged[item], n)
		}
	}
	return json.Marshal(merged)
}

// addItem puts items into a cart.
func addItem(item string, n int) func([]byte) ([]byte, error) {
	return func(old []byte) ([]byte, error) {
		c, err := decodeCart(old)
		if err != nil {
			return nil, err
		}
		c[item] += n
		return json.Marshal(c)
	}
}

// The first usage pattern of the paper (§ 6): business logic specific
// reconciliation. Two devices of one customer add to the cart at the same time,
// neither having seen the other; both additions survive.
func Example_shoppingCart() {
	t := &exampleTB{}
	defer t.end()
	carts := exampleClient(t).Bucket("carts")
	ctx := context.Background()

	start, err := carts.Update(ctx, "alice", mergeCarts, addItem("book", 1))
	if err != nil {
		fmt.Println(err)
		return
	}
	// Both devices read the same cart, then write without knowing of each other.
	for _, change := range []func([]byte) ([]byte, error){addItem("pen", 2), addItem("lamp", 1)} {
		value, err := change([]byte(`{"book":1}`))
		if err != nil {
			fmt.Println(err)
			return
		}
		if _, err := carts.Put(ctx, "alice", value, client.After(start.Context)); err != nil {
			fmt.Println(err)
			return
		}
	}
	both, err := carts.Get(ctx, "alice")
	fmt.Println(len(both.Values), "versions", err)

	// The next change merges them first.
	if _, err := carts.Update(ctx, "alice", mergeCarts, addItem("mug", 1)); err != nil {
		fmt.Println(err)
		return
	}
	one, err := carts.Get(ctx, "alice")
	if err != nil {
		fmt.Println(err)
		return
	}
	value, err := one.One()
	fmt.Println(string(value), err)
	// Output:
	// 2 versions <nil>
	// {"book":1,"lamp":1,"mug":1,"pen":2} <nil>
}

// The second usage pattern (§ 6): timestamp based reconciliation. The bucket
// shows the last write, and its values expire.
func Example_sessionStore() {
	t := &exampleTB{}
	defer t.end()
	properties := bucket.Default()
	properties.Conflicts, properties.TTL = dynamo.LastWriteWins, 30*time.Minute
	sessions := exampleClient(t, member.Bucket{Name: "sessions", Properties: properties}).Bucket("sessions")
	ctx := context.Background()

	for _, page := range []string{"home", "search", "checkout"} {
		if _, err := sessions.Put(ctx, "session-17", []byte(page)); err != nil {
			fmt.Println(err)
			return
		}
	}
	o, err := sessions.Get(ctx, "session-17")
	if err != nil {
		fmt.Println(err)
		return
	}
	value, err := o.One()
	fmt.Println(string(value), err)
	fmt.Println("expires within half an hour:", time.Until(o.Values[0].Expires) <= 30*time.Minute)
	// Output:
	// checkout <nil>
	// expires within half an hour: true
}

// The third usage pattern (§ 6): a high performance read engine. With R = 1 and
// W = N any one replica answers a read, and every read sees every write.
func Example_productCatalogue() {
	t := &exampleTB{}
	defer t.end()
	properties := bucket.Default()
	properties.Quorum.R, properties.Quorum.W = 1, 3
	catalogue := exampleClient(t, member.Bucket{Name: "catalogue", Properties: properties}).Bucket("catalogue")
	ctx := context.Background()

	w, err := catalogue.Put(ctx, "isbn/0-201-03801-3", []byte("The Art of Computer Programming"))
	fmt.Println("on", w.Replicas, "replicas", err)
	o, err := catalogue.Get(ctx, "isbn/0-201-03801-3")
	if err != nil {
		fmt.Println(err)
		return
	}
	value, err := o.One()
	fmt.Println(strings.ToUpper(string(value)), err)
	// Output:
	// on 3 replicas <nil>
	// THE ART OF COMPUTER PROGRAMMING <nil>
}
