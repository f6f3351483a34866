package actors

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/hashtree"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/vnode"
	"github.com/dynactor/dynactor/storage"
)

// A damaged range can only be dropped whole, but most of it can be read, and may be the last
// readable copy: another replica may have missed it, or not know yet that it cannot read its
// own. So what can be read is copied aside, the range is dropped, and the copy put back. All of it
// can be done again after a crash, until the copy goes in the batch that ends it.

// salvageBatch is how many bytes are copied with one batch.
const salvageBatch = 1 << 20

// errDropping: a partition is dropped already, or another one is.
var errDropping = errors.New("another drop is under way")

// renew drops what cannot be read of a partition, if it is lost, and puts back what was copied
// aside. Nothing of what the vnode says of itself stays; end is what it remembers of it. It
// runs on a reader, while the vnode serves nothing. Neighbours are waited for if patient.
func (s *Services) renew(p dynamo.Partition, lost, patient bool, end vnode.Loss) error {
	t := &s.losses
	if !t.begin(p) {
		return errDropping
	}
	defer t.end(p)
	holes, err := s.salvage(p)
	if err == nil {
		err = s.forgetOwn(p)
	}
	if err == nil && lost {
		if holes > 0 {
			s.maybeLost(p, end.Dropped)
		}
		t.hold(p)
		err = s.dropObjects(p, patient)
	}
	if err == nil {
		err = s.restore(p)
	}
	if err != nil {
		return err
	}
	b := s.Engine.NewBatch()
	b.DeleteRange(vnode.SalvageRange(p))
	b.Set(vnode.LossKey(p), end.Encode())
	if err := commitNow(b); err != nil {
		return err
	}
	t.free(p)
	s.Log.Warn("what can be read of a damaged partition was kept", slog.Uint64("partition", uint64(p)), slog.Int("holes", holes))
	return nil
}

// maybeLost says it if what cannot be read of a replica may be nowhere else: its reads have failed until
// now, and find nothing from now on.
func (s *Services) maybeLost(p dynamo.Partition, since uint64) {
	if !s.Document().MaybeLost(p, s.Self) || !s.losses.noteMaybeLost(p, since) {
		return
	}
	s.Counters.MaybeLost.Add(1)
	s.Log.Error("what cannot be read of a damaged partition may be lost: too few other replicas are whole; such keys are not found from now on",
		slog.Uint64("partition", uint64(p)))
}

// commitNow commits a batch and waits until it is durable.
func commitNow(b storage.Batch) error {
	durable := make(chan error, 1)
	if err := b.Commit(storage.Synced, func(err error) { durable <- err }); err != nil {
		return err
	}
	return <-durable
}

// salvage copies aside what can be read of a partition.
func (s *Services) salvage(p dynamo.Partition) (holes int, err error) {
	c := copying{s: s}
	for n := 1; n <= quorum.MaxN && err == nil; n++ {
		var some int
		some, err = s.readable(p, n, func(key, value []byte) bool {
			c.open().Set(vnode.SalvageKey(key), value)
			return c.added(len(key) + len(value))
		})
		holes += some
	}
	return holes, c.finish(err)
}

// forgetOwn removes what the vnode says of itself, before its objects go: its trees must not outlive them, should
// nothing have been copied aside that tells the next start of it.
func (s *Services) forgetOwn(p dynamo.Partition) error {
	b := s.Engine.NewBatch()
	for _, r := range vnode.OwnRanges(p) {
		b.DeleteRange(r[0], r[1])
	}
	return commitNow(b)
}

// restore puts back what was copied aside, with the index of what can be reaped; the trees are
// read anew when the vnode opens.
func (s *Services) restore(p dynamo.Partition) error {
	c := copying{s: s}
	lower, upper := vnode.SalvageRange(p)
	err := s.Engine.Scan(lower, upper, func(key, value []byte) bool {
		object := vnode.SalvagedObject(key)
		c.open().Set(object, value)
		if stored, err := vnode.DecodeStored(object, value); err == nil {
			if due, ends := reap.Due(stored.Record); ends {
				c.open().Set(vnode.AppendReapKey(nil, due, object), vnode.AppendReapValue(nil, stored.Record))
			}
		}
		return c.added(len(key) + len(value))
	})
	return c.finish(err)
}

// findAside looks for what was copied aside of partitions that have no vnode: they have moved away
// before it was put back, which a vnode does when it opens.
func (s *Services) findAside() (out []dynamo.Partition, err error) {
	all := s.vnodes.all()
	lower, upper := vnode.Salvages()
	for some := true; some && err == nil; {
		some = false
		err = s.Engine.Scan(lower, upper, func(key, _ []byte) bool {
			var p dynamo.Partition
			if p, _, some = vnode.ParseObjectKey(vnode.SalvagedObject(key)); some {
				if !slices.Contains(all, p) {
					out = append(out, p)
				}
				_, lower = vnode.SalvageRange(p)
			}
			return false
		})
	}
	return out, err
}

// copying writes much in small batches.
type copying struct {
	s     *Services
	batch storage.Batch
	bytes int
	err   error
}

func (c *copying) open() storage.Batch {
	if c.batch == nil {
		c.batch = c.s.Engine.NewBatch()
	}
	return c.batch
}

// added counts bytes, and reports whether more may be.
func (c *copying) added(n int) bool {
	if c.bytes += n; c.bytes >= salvageBatch {
		c.err = c.batch.Commit(storage.Applied, nil)
		c.batch, c.bytes = nil, 0
	}
	return c.err == nil
}

// finish makes all of it durable, unless something failed.
func (c *copying) finish(err error) error {
	if err = errors.Join(err, c.err); err != nil {
		if c.batch != nil {
			c.batch.Discard()
		}
		return err
	}
	return commitNow(c.open())
}

// readable visits the objects of one n that can be read, until visit returns false. After a key
// behind which nothing can be read, it looks for the first position from which on something can be again.
func (s *Services) readable(p dynamo.Partition, n int, visit func(key, value []byte) bool) (holes int, err error) {
	first, last := s.shape(p).Range(hashtree.Prefix{})
	at, end := binary.BigEndian.Uint64(first[:]), binary.BigEndian.Uint64(last[:])
	lower, upper := vnode.ReplicaRange(p, n)
	from := lower
	for {
		err := s.Engine.Scan(from, upper, func(key, value []byte) bool {
			position := vnode.ObjectPosition(key)
			at = max(at, binary.BigEndian.Uint64(position[:]))
			return visit(key, value)
		})
		if !errors.Is(err, storage.ErrDamaged) {
			return holes, err
		}
		holes++
		next, ok, err := beyond(at, end, func(position uint64) (bool, error) {
			err := s.Engine.Scan(binary.BigEndian.AppendUint64(bytes.Clone(lower), position), upper, func(_, _ []byte) bool { return false })
			if errors.Is(err, storage.ErrDamaged) {
				return false, nil
			}
			return true, err
		})
		if err != nil || !ok {
			return holes, err
		}
		at, from = next, binary.BigEndian.AppendUint64(bytes.Clone(lower), next)
	}
}

// beyond is a position after one, up to the end, from which on can be read again: that behind a hole, or at
// most a part in a million of the range further. Each read of a damaged block takes long, so it looks at
// twice the distance each time, and then between the last two: what lies between two holes that are
// closer than the first of them is wide may be taken for one with them.
func beyond(after, end uint64, reads func(uint64) (bool, error)) (from uint64, some bool, err error) {
	grain := max(1, (end-after)>>20)
	fails, from := after, after
	for step := grain; !some; step *= 2 {
		if fails = from; fails == end {
			return 0, false, nil
		}
		from = fails + min(step, end-fails)
		if some, err = reads(from); err != nil {
			return 0, false, err
		}
	}
	for from-fails > grain {
		middle := fails + (from-fails)/2
		ok, err := reads(middle)
		switch {
		case err != nil:
			return 0, false, err
		case ok:
			from = middle
		default:
			fails = middle
		}
	}
	return from, true, nil
}
