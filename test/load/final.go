package load

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/test/journal"
)

// Reader reads keys for the end of a journal.
type Reader struct {
	Bucket *client.Bucket
	// Replica is the node that alone can answer, if only one can.
	Replica string
	// R is how many primaries have to answer; 0 is as many replicas as the bucket
	// says.
	R int
	// Patience bounds the time for one key, over all attempts.
	Patience time.Duration
}

// readers is how many keys are read at a time.
const readers = 16

// Read reads the keys and writes down what they have.
func (r Reader) Read(ctx context.Context, keys []string, visit func(journal.Final)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	for range readers {
		all.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(keys)) && ctx.Err() == nil; i = next.Add(1) - 1 {
				f, err := r.one(ctx, keys[i])
				if err != nil {
					cancel(fmt.Errorf("read %s of %q: %w", keys[i], r.Replica, err))
					return
				}
				visit(f)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

// one reads a key, again when that fails.
func (r Reader) one(ctx context.Context, key string) (journal.Final, error) {
	ctx, cancel := context.WithTimeout(ctx, r.Patience)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		o, err := r.Bucket.Get(ctx, key, client.R(r.R), client.PR(r.R), client.Timeout(2*time.Second))
		if err == nil {
			f := journal.Final{Key: key, Replica: r.Replica, Values: []string{}}
			for _, v := range o.Values {
				f.Values = append(f.Values, string(v.Value))
				f.Dots = append(f.Dots, v.Dot)
			}
			return f, nil
		}
		select {
		case <-ctx.Done():
			return journal.Final{}, err
		case <-again.C:
		}
	}
}
