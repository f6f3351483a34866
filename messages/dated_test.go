package messages

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// hasRecords reports whether a message has records, in itself or in its parts: fields of
// bytes that are called so.
func hasRecords(d protoreflect.MessageDescriptor, above []protoreflect.FullName) bool {
	if slices.Contains(above, d.FullName()) {
		return false
	}
	above = append(above, d.FullName())
	for i := range d.Fields().Len() {
		f := d.Fields().Get(i)
		switch {
		case f.Kind() == protoreflect.BytesKind && f.Name() == "record":
			return true
		case f.Kind() == protoreflect.MessageKind && hasRecords(f.Message(), above):
			return true
		}
	}
	return false
}

// TestRecordsAreDated: whatever can have records has a date, and nothing else.
func TestRecordsAreDated(t *testing.T) {
	var got []string
	for n := range Number(len(table)) {
		m, ok := New(n)
		if !ok {
			continue
		}
		info, _ := InfoOf(n)
		dated, is := m.(Dated)
		if has := hasRecords(m.ProtoReflect().Descriptor(), nil); is != has {
			t.Errorf("%s: has records: %v, is dated: %v", info.Name, has, is)
		}
		if !is {
			continue
		}
		got = append(got, info.Name)
		if dated.SetReadMs(7); dated.GetReadMs() != 7 {
			t.Errorf("%s: the date set is not the date read", info.Name)
		}
	}
	want := []string{"ReadReply", "ReplicateRequest", "HandoffRequest", "FillReply", "ExchangeRequest", "ExchangeReply"}
	if !slices.Equal(got, want) {
		t.Errorf("dated are %v, want %v", got, want)
	}
}
