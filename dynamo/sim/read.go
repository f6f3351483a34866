package sim

import (
	"errors"

	"github.com/dynactor/dynactor/dynamo/version"
	"github.com/dynactor/dynactor/dynamo/vnode"
)

// load reads what is stored under a key for a write that will replace it. A
// value that fails its checksum is set aside and treated as forgotten.
func (v *vnodeShell) load(k *keyInfo) (vnode.Stored, error) {
	if s, ok := v.fresh[k.index]; ok {
		return s, nil
	}
	b, found, err := v.n.disk.get(k.stored)
	v.met(err)
	if err != nil || !found {
		return vnode.Stored{}, err
	}
	s, err := vnode.DecodeStored(k.stored, b)
	if errors.Is(err, vnode.ErrChecksum) || errors.Is(err, version.ErrCorrupt) {
		v.n.c.check.hidden(v.n, k)
		v.writes = append(v.writes, write{key: string(vnode.CorruptKey(k.stored)), value: b})
		v.commits = true
		v.damaged = append(v.damaged, k)
		return vnode.Stored{}, nil
	}
	return s, err
}

// read answers with the stored record, from the pool of readers.
func (v *vnodeShell) read(m *readRequest, from pid) {
	if !v.current(m.plan, from) {
		return
	}
	n, k := v.n, &v.n.c.keys[m.key]
	n.behind(m.plan, from.endpoint)
	proof, whole := n.proves(k), v.watch()
	v.n.after(scale(n.c.random.disk.Float64(), n.c.plan.disk.read), func() {
		b, found, err := n.disk.get(k.stored)
		if !whole() {
			n.tell(from, failure{codeNotReady})
			return
		}
		v.met(err)
		if err == nil && !found {
			n.tell(from, readReply{authoritative: proof && n.proves(k)})
			return
		}
		var rec []byte
		if err == nil {
			rec, err = vnode.StoredRecord(k.stored, b, m.digestAbove)
		}
		switch {
		case errors.Is(err, vnode.ErrChecksum) || errors.Is(err, version.ErrCorrupt):
			n.tell(from, readReply{authoritative: n.c.mutation == corruptAsNothing})
		case err != nil:
			n.tell(from, failure{codeStorage})
		default:
			n.tell(from, readReply{record: rec, read: n.c.now, authoritative: proof && n.proves(k)})
		}
	})
}
