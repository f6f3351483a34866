package actors

import (
	"bytes"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/request"
	"github.com/dynactor/dynactor/dynamo/ring"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// Counters are what a node has done since it started. They only grow.
type Counters struct {
	// Gets, Puts: requests coordinated here, by outcome.
	GetsFound, GetsNotFound, GetsFailed atomic.Uint64
	PutsDone, PutsFailed                atomic.Uint64
	// Forwards are writes passed on to a node of the preference list.
	Forwards atomic.Uint64
	// Shed: refused because a queue was full; Expired: dropped because their
	// time was over.
	Shed, Expired atomic.Uint64
	// Repairs are replicas found stale by a read and sent the result, RepairsMissing those of
	// them that had nothing of the key.
	Repairs, RepairsMissing atomic.Uint64
	// Siblings are reads that saw more than one version; Crowded those that
	// saw dynamo.WarnSiblings or more.
	Siblings, Crowded atomic.Uint64
	// Truncated are clock entries dropped (§ 4.4); NewEpochs are writes that
	// began an epoch; Repeated are retries answered without writing.
	Truncated, NewEpochs, Repeated atomic.Uint64
	// Hints are records kept for others; HintsRefused those refused because so
	// much was kept already; HintsDelivered those handed over and dropped.
	Hints, HintsRefused, HintsDelivered atomic.Uint64
	// Moved are objects handed over to their replicas and dropped; Filled those
	// taken from other replicas to fill a partition.
	Moved, Filled atomic.Uint64
	// Transfers are those that handed over all they had to, TransfersFailed those that ended before;
	// Fills and FillsFailed are the same of those that take. Bytes are of the records of each.
	Transfers, TransfersFailed, Fills, FillsFailed, TransferBytes, FillBytes atomic.Uint64
	// TreeRanges are ranges of hash trees that were read, TreeEntries what they held, and
	// TreeWrong the leaves that were not what the store held although nothing was known
	// against them.
	TreeRanges, TreeEntries, TreeWrong atomic.Uint64
	// Exchanges are comparisons with other replicas that this node began and that were
	// complete, ExchangesEqual those that found no difference, ExchangesFailed those that
	// were not complete. Mended are records that an exchange of this node or of another one
	// has changed here.
	Exchanges, ExchangesEqual, ExchangesFailed, Mended atomic.Uint64
	// ExchangeBytes is what the exchanges of this node have sent and got.
	ExchangeBytes atomic.Uint64
	// Reaps are reapings that this node began and that were complete, ReapsPutOff those that
	// were not; Reaped are records that were dropped from this node's store because nobody
	// sees anything in them.
	Reaps, ReapsPutOff, Reaped atomic.Uint64
	// TooOld are messages whose records were read from a store too long ago to be merged.
	TooOld atomic.Uint64
	// Lost are replicas that were dropped because something of them could not be read.
	Lost atomic.Uint64
	// MaybeLost are those of them of which something may be on no other replica.
	MaybeLost atomic.Uint64
	// Corrupt are stored values that failed their checksum.
	Corrupt atomic.Uint64
}

func (c *Counters) coordinated(r vnode.Result) {
	c.Truncated.Add(uint64(r.Truncated))
	if r.NewEpoch {
		c.NewEpochs.Add(1)
	}
	if r.Known {
		c.Repeated.Add(1)
	}
}

func (c *Counters) repair(why request.Cause) {
	c.Repairs.Add(1)
	if why == request.NothingFound {
		c.RepairsMissing.Add(1)
	}
}

func (c *Counters) siblings(n int) {
	if n > 1 {
		c.Siblings.Add(1)
	}
	if n >= dynamo.WarnSiblings {
		c.Crowded.Add(1)
	}
}

// corrupt reports a stored value that cannot be read. If it is an object's, the vnode's
// tree is to say that it is missing, so that an exchange brings it back.
func (s *Services) corrupt(p dynamo.Partition, storageKey []byte, err error) {
	s.countCorrupt(p, storageKey, err)
	if _, _, ok := vnode.ParseObjectKey(storageKey); ok {
		s.System.Root.Send(on(s.Self, vnodeName(p)), &doubted{key: bytes.Clone(storageKey)})
	}
}

// countCorrupt reports a stored value that cannot be read to whoever looks.
func (s *Services) countCorrupt(p dynamo.Partition, storageKey []byte, err error) {
	s.Counters.Corrupt.Add(1)
	_, key, _ := vnode.ParseObjectKey(storageKey)
	s.Log.Error("stored value is corrupt", slog.Uint64("partition", uint64(p)),
		slog.String("position", ring.Hash(key).String()), slog.Any("error", err))
}

// slowRequest is from when on a request is logged.
const slowRequest = 500 * time.Millisecond
