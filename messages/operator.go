package messages

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/clock"
	"github.com/dynactor/dynactor/dynamo/version"
)

// Limits of what operators are told.
const (
	// MaxBusiest is how many actors are in one answer.
	MaxBusiest = 200
	// MaxLogLines is how many lines are in one answer, MaxLogText how many bytes one has.
	MaxLogLines, MaxLogText = 500, 2048
	// MaxCopies is how many copies of a key a node tells of.
	MaxCopies = 64
	// MaxSettings is how many settings there are, MaxSetting the bytes of a name or value.
	MaxSettings, MaxSetting = 32, 256
	// hashBytes is how much is told of a value's hash.
	hashBytes = 8
)

// Copy is a record of a key on one node, without its values.
type Copy struct {
	// For is whom it is kept for; empty: it is the node's own.
	For dynamo.NodeID
	// Record has no values: Values says of each version what it had.
	Record version.Record
	Values []ValueInfo
	// Mark: there is no record; For lacks what this node has itself.
	Mark bool
	// Damaged: it cannot be read.
	Damaged bool
}

// ValueInfo is what is told of a value.
type ValueInfo struct {
	Size uint64
	// Hash is the beginning of its SHA-256, empty for tombstones.
	Hash []byte
}

// Lookup is what a node has of a key.
type Lookup struct {
	Partition dynamo.Partition
	N         int
	// Version is that of the document by which it says so.
	Version       uint64
	Role, Problem string
	// Incarnation is that of its vnode, zero if not known.
	Incarnation clock.Incarnation
	Copies      []Copy
}

// Lookup problems.
var errCopy = errors.New("copy of a key")

// Bare takes the values out of a record and says what they were.
func Bare(r version.Record) (version.Record, []ValueInfo) {
	values := make([]ValueInfo, len(r.Versions))
	bare := make([]version.Version, len(r.Versions))
	for i, v := range r.Versions {
		if !v.Tombstone {
			sum := sha256.Sum256(v.Value)
			values[i] = ValueInfo{Size: uint64(len(v.Value)), Hash: sum[:hashBytes]}
			v.Omitted, v.Value = true, nil
		}
		bare[i] = v
	}
	r.Versions = bare
	return r, values
}

// FromLookup converts what a node has for the wire.
func FromLookup(l Lookup) *LookupReply {
	out := &LookupReply{Partition: uint32(l.Partition), N: uint32(l.N), Version: l.Version, Role: l.Role, Problem: cut(l.Problem, MaxFieldText)}
	if l.Incarnation != (clock.Incarnation{}) {
		out.Incarnation = l.Incarnation[:]
	}
	for _, c := range l.Copies[:min(len(l.Copies), MaxCopies)] {
		k := &KeyCopy{HintFor: string(c.For), Mark: c.Mark, Damaged: c.Damaged}
		if !c.Mark && !c.Damaged {
			k.Outline = version.Append(nil, c.Record)
		}
		for _, v := range c.Values {
			k.Sizes, k.Hashes = append(k.Sizes, v.Size), append(k.Hashes, v.Hash)
		}
		out.Copies = append(out.Copies, k)
	}
	return out
}

// ToLookup checks and converts what a node has of a key.
func ToLookup(m *LookupReply) (Lookup, error) {
	out := Lookup{Partition: dynamo.Partition(m.GetPartition()), N: int(m.GetN()), Version: m.GetVersion(), Role: m.GetRole(), Problem: m.GetProblem()}
	if len(m.GetCopies()) > MaxCopies || len(out.Role) > MaxFieldText || len(out.Problem) > MaxFieldText {
		return Lookup{}, fmt.Errorf("%w: %d copies", ErrBounds, len(m.GetCopies()))
	}
	switch len(m.GetIncarnation()) {
	case 0:
	case len(out.Incarnation):
		copy(out.Incarnation[:], m.GetIncarnation())
	default:
		return Lookup{}, fmt.Errorf("%w: an incarnation of %d bytes", ErrBounds, len(m.GetIncarnation()))
	}
	for _, k := range m.GetCopies() {
		c, err := toCopy(k)
		if err != nil {
			return Lookup{}, err
		}
		out.Copies = append(out.Copies, c)
	}
	return out, nil
}

func toCopy(k *KeyCopy) (Copy, error) {
	c := Copy{For: dynamo.NodeID(k.GetHintFor()), Mark: k.GetMark(), Damaged: k.GetDamaged()}
	if c.For != "" {
		if err := c.For.Validate(); err != nil {
			return Copy{}, err
		}
	}
	if c.Mark || c.Damaged {
		return c, nil
	}
	var err error
	if c.Record, err = version.Decode(k.GetOutline()); err != nil {
		return Copy{}, err
	}
	n := len(c.Record.Versions)
	if len(k.GetSizes()) != n || len(k.GetHashes()) != n {
		return Copy{}, fmt.Errorf("%w: %d versions, %d sizes, %d hashes", errCopy, n, len(k.GetSizes()), len(k.GetHashes()))
	}
	for i, v := range c.Record.Versions {
		if len(v.Value) > 0 || len(k.Hashes[i]) > hashBytes {
			return Copy{}, fmt.Errorf("%w: version %v has a value, or a hash of %d bytes", errCopy, v.Dot, len(k.Hashes[i]))
		}
		c.Values = append(c.Values, ValueInfo{Size: k.Sizes[i], Hash: k.Hashes[i]})
	}
	return c, nil
}

// Busy is an actor, and how many messages it handles a second.
type Busy struct {
	Actor
	Rate float64
}

// By is what the busiest actors are sorted by.
type By uint32

// What the busiest actors are sorted by.
const (
	// ByRate: by messages handled a second; those stuck in a handler, and those that have failed, first.
	ByRate By = iota
	// ByWaiting: by messages that wait.
	ByWaiting
	// ByOldest: by how long the oldest message waits, or the handler runs.
	ByOldest
	// EndOfBy is no order, but how many there are.
	EndOfBy
)

// Compare is negative when x has more to do than y.
func (b By) Compare(x, y *Busy) int {
	switch b {
	case ByWaiting:
		return cmp.Or(cmp.Compare(y.Queued+y.Control, x.Queued+x.Control), cmp.Compare(y.Rate, x.Rate))
	case ByOldest:
		return cmp.Or(cmp.Compare(max(y.Oldest, y.InHandler), max(x.Oldest, x.InHandler)), cmp.Compare(y.Rate, x.Rate))
	}
	return cmp.Or(cmp.Compare(y.stuck(), x.stuck()), cmp.Compare(y.Rate, x.Rate), cmp.Compare(y.Queued, x.Queued))
}

// stuck is how much an actor needs somebody to look: 2 it has failed, 1 it does not come back
// from its handler.
func (b *Busy) stuck() int {
	switch {
	case b.Suspended:
		return 2
	case b.InHandler >= time.Second:
		return 1
	}
	return 0
}

// ToBusiest checks a request for the busiest actors.
func ToBusiest(m *BusiestRequest) (by By, limit int, err error) {
	if by = By(m.GetBy()); by >= EndOfBy {
		return 0, 0, fmt.Errorf("%w: order %d", ErrBounds, by)
	}
	return by, atMost(m.GetLimit(), MaxBusiest), nil
}

// FromBusiest converts the busiest actors for the wire; all is how many there are.
func FromBusiest(busy []Busy, all int) *BusiestReply {
	out := &BusiestReply{All: uint32(max(all, 0))}
	for _, b := range busy[:min(len(busy), MaxBusiest)] {
		if b.Panic != nil {
			short := *b.Panic
			short.Stack = ""
			b.Panic = &short
		}
		out.Actors = append(out.Actors, &BusyActor{Actor: FromActor(b.Actor), Rate: b.Rate})
	}
	return out
}

// ToBusy checks and converts the busiest actors.
func ToBusy(m *BusiestReply) (busy []Busy, all int, err error) {
	if len(m.GetActors()) > MaxBusiest {
		return nil, 0, fmt.Errorf("%w: %d actors", ErrBounds, len(m.GetActors()))
	}
	for _, row := range m.GetActors() {
		b := Busy{Rate: row.GetRate()}
		if math.IsNaN(b.Rate) || math.IsInf(b.Rate, 0) || b.Rate < 0 {
			return nil, 0, fmt.Errorf("%w: %v messages a second", ErrBounds, b.Rate)
		}
		if b.Actor, err = toActor(row.GetActor()); err != nil {
			return nil, 0, err
		}
		busy = append(busy, b)
	}
	return busy, int(min(m.GetAll(), math.MaxInt32)), nil
}

// Line is one event that a node has logged.
type Line struct {
	// Number counts the lines of one run of the node.
	Number uint64
	At     time.Time
	Level  string
	Text   string
}

// ToLogLimit is how many lines an answer may have.
func ToLogLimit(m *LogRequest) int { return atMost(m.GetLimit(), MaxLogLines) }

// FromLines converts what was logged for the wire.
func FromLines(lines []Line, run, lost uint64) *LogReply {
	out := &LogReply{Run: run, Lost: lost}
	for _, l := range lines[:min(len(lines), MaxLogLines)] {
		out.Lines = append(out.Lines, &LogLine{Number: l.Number, TimeMs: l.At.UnixMilli(), Level: cut(l.Level, MaxSetting), Text: cut(l.Text, MaxLogText)})
	}
	return out
}

// ToLines checks and converts what was logged.
func ToLines(m *LogReply) ([]Line, error) {
	if len(m.GetLines()) > MaxLogLines {
		return nil, fmt.Errorf("%w: %d lines", ErrBounds, len(m.GetLines()))
	}
	var out []Line
	for _, l := range m.GetLines() {
		at, err := toTime(l.GetTimeMs())
		if err != nil {
			return nil, err
		}
		if len(l.GetLevel()) > MaxSetting || len(l.GetText()) > MaxLogText {
			return nil, fmt.Errorf("%w: a line of %d bytes", ErrBounds, len(l.GetText()))
		}
		out = append(out, Line{l.GetNumber(), at, l.GetLevel(), l.GetText()})
	}
	return out, nil
}

// NodeSetting is a setting of a node that can change while it runs.
type NodeSetting struct{ Name, Value, Help string }

// FromSettings converts settings for the wire.
func FromSettings(all []NodeSetting) *SettingsReply {
	out := &SettingsReply{}
	for _, s := range all[:min(len(all), MaxSettings)] {
		out.Settings = append(out.Settings, &Setting{Name: cut(s.Name, MaxSetting), Value: cut(s.Value, MaxSetting), Help: cut(s.Help, MaxFieldText)})
	}
	return out
}

// ToSettings checks and converts settings.
func ToSettings(m *SettingsReply) ([]NodeSetting, error) {
	if len(m.GetSettings()) > MaxSettings {
		return nil, fmt.Errorf("%w: %d settings", ErrBounds, len(m.GetSettings()))
	}
	var out []NodeSetting
	for _, s := range m.GetSettings() {
		if len(s.GetName()) > MaxSetting || len(s.GetValue()) > MaxSetting || len(s.GetHelp()) > MaxFieldText {
			return nil, fmt.Errorf("%w: a setting of %d bytes", ErrBounds, len(s.GetName())+len(s.GetValue())+len(s.GetHelp()))
		}
		out = append(out, NodeSetting{s.GetName(), s.GetValue(), s.GetHelp()})
	}
	return out, nil
}
