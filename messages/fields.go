package messages

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Limits of what an actor says of itself. What is longer is cut when it is sent, and refused
// when it comes.
const (
	// MaxFields is how many fields there are, those of lists included.
	MaxFields = 1000
	// MaxListed is how many fields a list has.
	MaxListed = 200
	// MaxFieldDepth is how deep lists lie in lists.
	MaxFieldDepth = 3
	// MaxFieldName and MaxFieldText are in bytes.
	MaxFieldName, MaxFieldText = 512, 2048
)

// Values of fields, besides string, time.Duration and time.Time.
type (
	// Count is a number of things.
	Count uint64
	// Bytes is a size.
	Bytes uint64
	// Share is a part of a whole that is 1.
	Share float64
	// List has fields of its own; More says that some were left out.
	List struct {
		Fields Fields
		More   bool
	}
)

// Field is one thing that an actor says of itself. Value is a string, time.Duration,
// time.Time, Count, Bytes, Share or List.
type Field struct {
	Name  string
	Value any
}

// Fields are what an actor says of itself, in the order in which they are shown.
type Fields []Field

// Add appends a field. An int is a count, a bool yes or no, Fields are a list, and what is
// not listed with Field its text. Nothing is said with an empty text, a time that never was,
// or a list of nothing: they are left out.
func (f Fields) Add(name string, value any) Fields {
	switch v := value.(type) {
	case int:
		value = Count(max(v, 0))
	case uint64:
		value = Count(v)
	case bool:
		value = "no"
		if v {
			value = "yes"
		}
	case Fields:
		value = List{Fields: v}
	case string, time.Duration, time.Time, Count, Bytes, Share, List:
	default:
		value = fmt.Sprint(v)
	}
	if isNothing(value) {
		return f
	}
	return append(f, Field{name, value})
}

func isNothing(value any) bool {
	switch v := value.(type) {
	case string:
		return v == ""
	case time.Time:
		return v.IsZero()
	case List:
		return len(v.Fields) == 0
	}
	return false
}

// FromFields converts fields for the wire.
func FromFields(f Fields) *ActorFields {
	left := MaxFields
	return fromList(List{Fields: f}, 0, &left)
}

// fromList converts a list at a depth, with so many fields left.
func fromList(l List, depth int, left *int) *ActorFields {
	out := &ActorFields{More: l.More}
	for _, f := range l.Fields {
		if len(out.Fields) == MaxListed || *left == 0 || depth >= MaxFieldDepth {
			out.More = true
			break
		}
		*left--
		out.Fields = append(out.Fields, fromField(f, depth, left))
	}
	return out
}

func fromField(f Field, depth int, left *int) *ActorField {
	out := &ActorField{Name: cmp.Or(cut(f.Name, MaxFieldName), "-")}
	switch v := f.Value.(type) {
	case Count:
		out.Value = &ActorField_Count{uint64(v)}
	case Bytes:
		out.Value = &ActorField_Bytes{uint64(v)}
	case Share:
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			v = 0 // of nothing
		}
		out.Value = &ActorField_Share{float64(v)}
	case time.Duration:
		out.Value = &ActorField_DurationUs{v.Microseconds()}
	case time.Time:
		out.Value = &ActorField_TimeMs{min(max(v.UnixMilli(), 0), maxTime)}
	case List:
		out.Value = &ActorField_List{fromList(v, depth+1, left)}
	default:
		out.Value = &ActorField_Text{cut(fmt.Sprint(v), MaxFieldText)}
	}
	return out
}

// cut makes a text that can travel: valid UTF-8, of at most so many bytes.
func cut(s string, size int) string {
	s = strings.ToValidUTF8(s, "\uFFFD")
	if len(s) <= size {
		return s
	}
	const dots = "…"
	end := size - len(dots)
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + dots
}

// ToFields checks and converts fields. Lists in them that are empty are kept.
func ToFields(m *ActorFields) (List, error) {
	left := MaxFields
	return toList(m, 0, &left)
}

func toList(m *ActorFields, depth int, left *int) (List, error) {
	out := List{More: m.GetMore()}
	n := len(m.GetFields())
	if n > MaxListed || n > *left || n > 0 && depth >= MaxFieldDepth {
		return List{}, fmt.Errorf("%w: a list of %d fields at depth %d", ErrBounds, n, depth)
	}
	*left -= n
	for _, f := range m.GetFields() {
		if f.GetName() == "" || len(f.GetName()) > MaxFieldName {
			return List{}, fmt.Errorf("%w: a field's name of %d bytes", ErrBounds, len(f.GetName()))
		}
		value, err := toValue(f, depth, left)
		if err != nil {
			return List{}, fmt.Errorf("field %q: %w", f.GetName(), err)
		}
		out.Fields = append(out.Fields, Field{f.GetName(), value})
	}
	return out, nil
}

// maxTime is the last instant that has a year of four digits, in ms.
var maxTime = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).UnixMilli()

func toValue(f *ActorField, depth int, left *int) (any, error) {
	switch v := f.GetValue().(type) {
	case *ActorField_Text:
		if len(v.Text) > MaxFieldText {
			return nil, fmt.Errorf("%w: a text of %d bytes", ErrBounds, len(v.Text))
		}
		return v.Text, nil
	case *ActorField_Count:
		return Count(v.Count), nil
	case *ActorField_Bytes:
		return Bytes(v.Bytes), nil
	case *ActorField_Share:
		if math.IsNaN(v.Share) || math.IsInf(v.Share, 0) {
			return nil, fmt.Errorf("%w: a share of %v", ErrBounds, v.Share)
		}
		return Share(v.Share), nil
	case *ActorField_DurationUs:
		if limit := time.Duration(math.MaxInt64).Microseconds(); v.DurationUs > limit || v.DurationUs < -limit {
			return nil, fmt.Errorf("%w: %d µs", ErrBounds, v.DurationUs)
		}
		return time.Duration(v.DurationUs) * time.Microsecond, nil
	case *ActorField_TimeMs:
		return toTime(v.TimeMs)
	case *ActorField_List:
		return toList(v.List, depth+1, left)
	}
	return "", nil // of a kind that this program does not know
}

func toTime(ms int64) (time.Time, error) {
	if ms < 0 || ms > maxTime {
		return time.Time{}, fmt.Errorf("%w: %d ms since 1970", ErrBounds, ms)
	}
	return time.UnixMilli(ms).UTC(), nil
}

// Sorted are the fields by name: what comes from a map has no order.
func (f Fields) Sorted() Fields {
	return slices.SortedStableFunc(slices.Values(f), func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
}
