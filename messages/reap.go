package messages

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/reap"
	"github.com/dynactor/dynactor/dynamo/version"
)

// ReapKeyOf is a checked ReapKey.
type ReapKeyOf struct {
	Key  dynamo.Key
	Hash [version.HashSize]byte
	// Due is the instant from which on nothing of the record is seen; 0: always.
	Due dynamo.Timestamp
}

// FromReapKeys converts keys for the wire.
func FromReapKeys(keys []ReapKeyOf) []*ReapKey {
	out := make([]*ReapKey, len(keys))
	for i, k := range keys {
		out[i] = &ReapKey{Bucket: []byte(k.Key.Bucket), Key: []byte(k.Key.Name), Hash: k.Hash[:], DueNs: int64(k.Due)}
	}
	return out
}

// ToReapKeys checks and converts the n and the keys of a ReapRequest or a
// ReapDropRequest.
func ToReapKeys(m interface {
	GetN() uint32
	GetKeys() []*ReapKey
}) (n int, keys []ReapKeyOf, err error) {
	if n, err = toN(m.GetN()); err != nil {
		return 0, nil, err
	}
	if len(m.GetKeys()) > reap.MaxKeys {
		return 0, nil, fmt.Errorf("%w: %d keys to reap, at most %d", ErrBounds, len(m.GetKeys()), reap.MaxKeys)
	}
	for _, k := range m.GetKeys() {
		key, err := ToKey(k.GetBucket(), k.GetKey())
		if err != nil {
			return 0, nil, err
		}
		if len(k.GetHash()) != version.HashSize || k.GetDueNs() < 0 {
			return 0, nil, fmt.Errorf("%w: a hash of %d bytes, due at %d", ErrBounds, len(k.GetHash()), k.GetDueNs())
		}
		keys = append(keys, ReapKeyOf{Key: key, Hash: [version.HashSize]byte(k.GetHash()), Due: dynamo.Timestamp(k.GetDueNs())})
	}
	return n, keys, nil
}

// ToReapAnswer checks and converts an answer about keys that are named by their places at
// the asker, in the order in which they were asked for.
func ToReapAnswer(m *ReapReply, asked []int) (reap.Answer, error) {
	a := reap.Answer{
		Version: m.GetVersion(), Clear: m.GetClear(), Mark: [2]uint64{m.GetRun(), m.GetChanges()},
		Life: time.Duration(min(m.GetLifeMs(), 1<<40)) * time.Millisecond,
	}
	switch len(m.GetIncarnation()) {
	case 0:
	case len(clock.Incarnation{}):
		a.Incarnation = clock.Incarnation(m.GetIncarnation())
	default:
		return a, fmt.Errorf("%w: an incarnation of %d bytes", ErrBounds, len(m.GetIncarnation()))
	}
	if !slices.IsSorted(m.GetHeld()) {
		return a, fmt.Errorf("%w: keys are not ascending", ErrBounds)
	}
	for _, i := range m.GetHeld() {
		if int(i) >= len(asked) {
			return a, fmt.Errorf("%w: holds key %d of %d", ErrBounds, i, len(asked))
		}
		a.Held = append(a.Held, asked[i])
	}
	return a, nil
}
