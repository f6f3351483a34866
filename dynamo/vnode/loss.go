package vnode

import (
	"encoding/binary"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
)

// Loss is what a vnode remembers of damage in its store.
type Loss struct {
	// Suspect is the version of the cluster document in force when something could not be
	// read, 0: everything could. From then on the vnode may be told to drop its objects by
	// a version that others know first.
	Suspect uint64
	// Dropped is the version for which it has dropped its objects last.
	Dropped uint64
}

// LossKey is the storage key of a vnode's Loss.
func LossKey(p dynamo.Partition) []byte {
	return binary.BigEndian.AppendUint32([]byte{kindMeta, 'l', '/'}, uint32(p))
}

// SalvageKey is where what can be read of a damaged replica lies while the rest is dropped, by
// the storage key of the object; SalvageRange is the range of a partition's.
func SalvageKey(object []byte) []byte { return append([]byte{kindSalvage}, object...) }

// SalvageRange is the range of SalvageKey for a partition.
func SalvageRange(p dynamo.Partition) (lower, upper []byte) {
	lower, upper = ObjectRange(p)
	return SalvageKey(lower), SalvageKey(upper)
}

// Salvages is the range of SalvageKey for all partitions.
func Salvages() (lower, upper []byte) { return []byte{kindSalvage}, []byte{kindSalvage + 1} }

// SalvagedObject is the storage key of the object that a key of SalvageRange stands for.
func SalvagedObject(key []byte) []byte { return key[1:] }

// Encode returns the bytes to store.
func (l Loss) Encode() []byte {
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, l.Suspect), l.Dropped)
}

// DecodeLoss reads what Encode wrote.
func DecodeLoss(b []byte) (Loss, error) {
	if len(b) != 16 {
		return Loss{}, ErrFormat
	}
	return Loss{Suspect: binary.BigEndian.Uint64(b), Dropped: binary.BigEndian.Uint64(b[8:])}, nil
}

// OwnRanges are the ranges of storage keys of what a vnode keeps besides its objects and
// says nothing without them: its state, its trees, and the index of what can be reaped.
func OwnRanges(p dynamo.Partition) (ranges [][2][]byte) {
	add := func(lower, upper []byte) { ranges = append(ranges, [2][]byte{lower, upper}) }
	add(MetaKey(p), append(MetaKey(p), 0))
	for n := 1; n <= quorum.MaxN; n++ {
		add(TreeRange(p, n))
		add(MarkRange(p, n))
	}
	index := binary.BigEndian.AppendUint32([]byte{kindReap}, uint32(p))
	return append(ranges, [2][]byte{index, increment(append([]byte(nil), index...))})
}
