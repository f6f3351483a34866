package messages

import (
	"errors"
	"fmt"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/version"
)

// Errors of conversion, apart from those of the packages converted to.
var (
	// ErrValueTooLarge: the value is longer than the node's limit.
	ErrValueTooLarge = errors.New("value is too large")
	// ErrRequestID: a request id has 16 bytes, or none.
	ErrRequestID = errors.New("request id does not have 16 bytes")
	// ErrTimeout: the time asked for is over MaxTimeout.
	ErrTimeout = errors.New("timeout is too long")
	// ErrOmitted: a record to store lacks a value.
	ErrOmitted = errors.New("record lacks a value")
	// ErrBounds: a number on the wire is outside what it can be.
	ErrBounds = errors.New("number out of bounds")
)

// MaxTimeout is the longest time a request may ask for.
const MaxTimeout = 5 * time.Minute

// ToKey checks and converts a key.
func ToKey(bucket, key []byte) (dynamo.Key, error) {
	k := dynamo.Key{Bucket: string(bucket), Name: string(key)}
	return k, k.Validate()
}

// ToTimeout converts a time limit; 0 becomes standard.
func ToTimeout(ms uint32, standard time.Duration) (time.Duration, error) {
	d := time.Duration(ms) * time.Millisecond
	if d > MaxTimeout {
		return 0, fmt.Errorf("%w: %v, at most %v", ErrTimeout, d, MaxTimeout)
	}
	if d == 0 {
		d = standard
	}
	return d, nil
}

// ToOverride converts the numbers that a request sets; the bucket's rules check
// them.
func ToOverride(q *Quorum) quorum.Override {
	clamp := func(x uint32) int { return int(min(x, 1<<16)) }
	return quorum.Override{R: clamp(q.GetR()), W: clamp(q.GetW()), PR: clamp(q.GetPr()), PW: clamp(q.GetPw())}
}

// Put is a checked PutRequest.
type Put struct {
	Key     dynamo.Key
	Request dynamo.RequestID
	Context version.Context
	Value   []byte
	Delete  bool
	Retry   bool
	Age     time.Duration
}

// ToPut checks and converts a write. Values alias the message.
func ToPut(m *PutRequest, maxValue int) (Put, error) {
	var p Put
	var err error
	if p.Key, err = ToKey(m.GetBucket(), m.GetKey()); err != nil {
		return p, err
	}
	if len(m.GetValue()) > maxValue {
		return p, fmt.Errorf("%w: %d bytes, at most %d", ErrValueTooLarge, len(m.GetValue()), maxValue)
	}
	switch len(m.GetRequestId()) {
	case 0:
	case len(p.Request):
		copy(p.Request[:], m.GetRequestId())
	default:
		return p, fmt.Errorf("%w: %d", ErrRequestID, len(m.GetRequestId()))
	}
	if p.Context, err = version.DecodeContext(p.Key, m.GetContext()); err != nil {
		return p, err
	}
	p.Value, p.Delete = m.GetValue(), m.GetDelete()
	p.Retry, p.Age = m.GetRetry(), time.Duration(m.GetAgeMs())*time.Millisecond
	return p, nil
}

// Read is a checked ReadRequest.
type Read struct {
	Key dynamo.Key
	N   int
	// DigestAbove: longer values are left out of the answer; 0 leaves none out.
	DigestAbove int
}

// ToRead checks and converts a read of one replica.
func ToRead(m *ReadRequest) (Read, error) {
	key, err := ToKey(m.GetBucket(), m.GetKey())
	if err != nil {
		return Read{}, err
	}
	n, err := toN(m.GetN())
	if err != nil {
		return Read{}, err
	}
	return Read{Key: key, N: n, DigestAbove: int(m.GetDigestAbove())}, nil
}

// Replicate is a checked ReplicateRequest, or one record of a HandoffRequest.
type Replicate struct {
	Key    dynamo.Key
	N      int
	Record version.Record
	// HintFor is the primary that the receiver stands in for; empty: none.
	HintFor dynamo.NodeID
}

// ToReplicate checks and converts a record on its way to a replica. Values
// alias the message. The limits on client input do not hold here, but half a
// record is never stored.
func ToReplicate(m *ReplicateRequest) (Replicate, error) {
	out, err := toReplicate(m.GetN(), m.GetBucket(), m.GetKey(), m.GetRecord())
	if out.HintFor = dynamo.NodeID(m.GetHintFor()); err == nil && out.HintFor != "" {
		err = out.HintFor.Validate()
	}
	return out, err
}

// ToHandoff checks and converts all records of a batch; the first that is bad
// refuses it whole. Values alias the message.
func ToHandoff(m *HandoffRequest) ([]Replicate, error) {
	out := make([]Replicate, len(m.GetRecords()))
	for i, r := range m.GetRecords() {
		var err error
		if out[i], err = toReplicate(m.GetN(), r.GetBucket(), r.GetKey(), r.GetRecord()); err != nil {
			return nil, fmt.Errorf("record %d: %w", i, err)
		}
	}
	return out, nil
}

// FillBatch is a checked FillRequest.
type FillBatch struct {
	N int
	// Wanted are the keys whose records are asked for; none: the batch at Cursor.
	Wanted []dynamo.Key
	Cursor []byte
	// Digests: the answer is to have hashes instead of records.
	Digests bool
}

// MaxWanted is how many keys a FillRequest may name, and how many digests its
// answer may have.
const MaxWanted = 512

// ToFill checks and converts a request for records. The cursor aliases the
// message; whether it lies in the partition is not checked.
func ToFill(m *FillRequest) (FillBatch, error) {
	n, err := toN(m.GetN())
	if err != nil {
		return FillBatch{}, err
	}
	if len(m.GetWanted()) > MaxWanted {
		return FillBatch{}, fmt.Errorf("%w: %d keys are wanted, at most %d", ErrBounds, len(m.GetWanted()), MaxWanted)
	}
	out := FillBatch{N: n, Cursor: m.GetCursor(), Digests: m.GetDigests()}
	for _, k := range m.GetWanted() {
		key, err := ToKey(k.GetBucket(), k.GetKey())
		if err != nil {
			return FillBatch{}, err
		}
		out.Wanted = append(out.Wanted, key)
	}
	return out, nil
}

// Digest is a checked FillDigest.
type Digest struct {
	Key  dynamo.Key
	Hash [version.HashSize]byte
}

// ToDigests checks and converts the hashes of a FillReply.
func ToDigests(m *FillReply) ([]Digest, error) {
	if len(m.GetDigests()) > MaxWanted {
		return nil, fmt.Errorf("%w: %d digests, at most %d", ErrBounds, len(m.GetDigests()), MaxWanted)
	}
	out := make([]Digest, len(m.GetDigests()))
	for i, d := range m.GetDigests() {
		key, err := ToKey(d.GetBucket(), d.GetKey())
		if err != nil {
			return nil, err
		}
		if len(d.GetHash()) != version.HashSize {
			return nil, fmt.Errorf("%w: a hash of %d bytes", ErrBounds, len(d.GetHash()))
		}
		out[i] = Digest{Key: key, Hash: [version.HashSize]byte(d.GetHash())}
	}
	return out, nil
}

func toReplicate(wireN uint32, bucket, name, record []byte) (Replicate, error) {
	key, err := ToKey(bucket, name)
	if err != nil {
		return Replicate{}, err
	}
	n, err := toN(wireN)
	if err != nil {
		return Replicate{}, err
	}
	rec, err := version.Decode(record)
	if err != nil {
		return Replicate{}, err
	}
	if missing := rec.Missing(); len(missing) > 0 {
		return Replicate{}, fmt.Errorf("%w: that of %v", ErrOmitted, missing[0])
	}
	return Replicate{Key: key, N: n, Record: rec}, nil
}

func toN(n uint32) (int, error) {
	if n < 1 || n > quorum.MaxN {
		return 0, fmt.Errorf("%w: n is %d", ErrBounds, n)
	}
	return int(n), nil
}

// ToRecord converts the answer to a read; found is false when the replica has
// no record.
func ToRecord(m *ReadReply) (rec version.Record, found bool, err error) {
	if len(m.GetRecord()) == 0 {
		return version.Record{}, false, nil
	}
	rec, err = version.Decode(m.GetRecord())
	return rec, err == nil, err
}

// FromLive converts the versions that a reader sees.
func FromLive(key dynamo.Key, live []version.Version, c version.Context) *GetReply {
	out := &GetReply{Context: c.Encode(key), Values: make([]*Value, len(live))}
	for i, v := range live {
		out.Values[i] = &Value{Value: v.Value, TimeNs: int64(v.Time), Dot: v.Dot.String(), ExpiresNs: int64(v.Expires)}
	}
	return out
}
