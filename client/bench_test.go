package client_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
)

// BenchmarkCluster is three nodes and a client in one process, closed loop,
// stores in memory: what a request costs without the disk.
func BenchmarkCluster(b *testing.B) {
	cl := connect(b, clustertest.Start(b, clustertest.Options{}))
	bucket := cl.Bucket("bench")
	ctx := context.Background()
	value := make([]byte, 100)
	const keys = 10_000
	contexts := make([]client.Context, keys)
	for _, mix := range []string{"put", "get"} {
		for _, clients := range []int{1, 64} {
			b.Run(fmt.Sprintf("%s/clients=%d", mix, clients), func(b *testing.B) {
				var wg sync.WaitGroup
				for c := range clients {
					wg.Go(func() {
						for i := c; i < b.N; i += clients {
							k := i/clients%(keys/clients)*clients + c
							key := fmt.Sprintf("key%06d", k)
							var err error
							if mix == "get" {
								_, err = bucket.Get(ctx, key)
							} else {
								var w client.Written
								w, err = bucket.Put(ctx, key, value, client.After(contexts[k]))
								contexts[k] = w.Context
							}
							if err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}
