package blackbox

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynactor/dynactor/test/load"
)

// TestOldBackup restores an old copy of a node's data directory under load: the others
// refuse it, because it knows less than what they have heard from it, and it does not
// serve; nothing deleted comes back. Emptied, the node is filled.
func TestOldBackup(t *testing.T) {
	t.Parallel()
	ns := newNodes(t, 3, newLoopback(t, 3), "--partitions=16", "--aae-interval=1s")
	tr := newTrial(t, ns, load.Config{Workers: 8, Keys: 100, PerKey: 10, Every: 5 * time.Millisecond, Seed: 1, Prefix: "o"})
	tr.load.Start()
	tr.progress(500)
	victim := ns.all[2]
	stop := func() {
		victim.signal(t, syscall.SIGTERM)
		if err := victim.wait(t); err != nil {
			t.Fatal(err)
		}
	}
	data, backup := filepath.Join(victim.dir, "data"), filepath.Join(victim.dir, "backup")
	stop()
	if err := os.CopyFS(backup, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	victim.start(t)
	ns.linked()
	tr.progress(1000)
	stop()
	victim.start(t) // its number of starts is above that of the copy's next one
	ns.linked()
	tr.progress(500)
	stop()
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(backup, data); err != nil {
		t.Fatal(err)
	}
	victim.start(t)
	eventually(t, "the old copy says that it must not serve", func() bool {
		h, err := victim.health(t.Context())
		return err == nil && !h.Health.Ready && strings.Contains(h.Health.Reason, "has been started since")
	})
	tr.progress(1000)
	victim.kill(t)
	if err := os.RemoveAll(data); err != nil {
		t.Fatal(err)
	}
	victim.start(t)
	ns.linked()
	tr.progress(500)
	ops := tr.stop()
	tr.settle()
	tr.judge(append(tr.equalized(keysOf(ops)), tr.whole(keysOf(ops), 0)...))
}
