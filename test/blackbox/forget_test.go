package blackbox

import (
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynactor/dynactor/client"
)

// TestForgetsAll: of many keys that were deleted while a node was down nothing is forgotten
// until it is back, and all of it then, before two rounds of exchanges are over.
// DYNACTOR_FORGET_KEYS is how many keys there are; with it the nodes are those that users
// get, with default settings, and the time is judged.
func TestForgetsAll(t *testing.T) {
	t.Parallel()
	const round = 10 * time.Minute // the default of --aae-interval
	keys, program, args := 300, wrongClock, []string{"--partitions=8", "--aae-interval=1s"}
	limit := patience
	if s := os.Getenv("DYNACTOR_FORGET_KEYS"); s != "" {
		var err error
		if keys, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
		program, args, limit = "node", nil, 2*round
	}
	ns := newNodesOf(t, program, 3, newLoopback(t, 3), args...)
	c := connect(t, ns.all...)
	b := c.Bucket(bucket)
	each := func(what string, do func(key string) error) {
		t.Helper()
		began := time.Now()
		var next atomic.Int64
		errs := make(chan error, 16)
		for range cap(errs) {
			go func() {
				var err error
				for i := next.Add(1); i <= int64(keys) && err == nil; i = next.Add(1) {
					err = do(fmt.Sprint("k", i))
				}
				errs <- err
			}()
		}
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		t.Logf("%d keys %s in %v", keys, what, time.Since(began).Round(time.Millisecond))
	}
	each("written", func(key string) error {
		_, err := b.Put(t.Context(), key, []byte("old"))
		return err
	})
	down := ns.all[2]
	down.kill(t)
	each("deleted", func(key string) error {
		o, err := b.Get(t.Context(), key)
		if err != nil {
			return err
		}
		_, err = b.Delete(t.Context(), key, client.After(o.Context))
		return err
	})
	if n, _ := reaped(t, c); n > 0 {
		t.Errorf("%d records were forgotten while a node was down", n)
	}
	down.start(t)
	down.waitReady(t)
	up := time.Now()
	within(t, limit, "all that was deleted is forgotten", func() bool {
		n, _ := reaped(t, c)
		return n >= uint64(3*keys)
	})
	t.Logf("forgotten %v after the node was back", time.Since(up).Round(time.Second))
	if left := kept(t, b); len(left) > 0 {
		t.Errorf("%d keys are left, as %s", len(left), left[0])
	}
}
