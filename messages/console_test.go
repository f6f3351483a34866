package messages

import (
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"
)

// sent is a message as it arrives.
func sent[M proto.Message](t testing.TB, m M) M {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatalf("cannot be sent: %v", err)
	}
	out := m.ProtoReflect().New().Interface()
	if err := proto.Unmarshal(b, out); err != nil {
		t.Fatal(err)
	}
	return out.(M)
}

func someActor(name string) Actor {
	return Actor{
		Name: name, Parent: "vnodes", Queued: 1, Control: 2, Bytes: 3, Processed: 4, Shed: 5, Expired: 6, Restarts: 7, Age: time.Hour, Oldest: time.Second,
		InHandler: time.Millisecond, Suspended: true, Panic: &ActorFault{"boom", "*x.Y", time.Minute, "goroutine 1"},
	}
}

// TestInspection: what is sent is what arrives.
func TestInspection(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	fields := Fields{}.Add("text", "a\x1b[2J").Add("int", 7).Add("negative", -1).Add("count", uint64(math.MaxUint64)).Add("bytes", Bytes(5)).
		Add("share", Share(0.25)).Add("took", 1500*time.Microsecond).Add("back", -time.Second).Add("at", at).Add("on", true).Add("off", false).
		Add("said", RoleClient).Add("list", Fields{}.Add("inner", Fields{}.Add("x", 1))).
		Add("nothing", "").Add("never", time.Time{}).Add("nobody", Fields{}).Add("none", 0)
	want := Inspection{Actor: someActor("vnode/17"), List: List{Fields: Fields{
		{"text", "a\x1b[2J"}, {"int", Count(7)}, {"negative", Count(0)}, {"count", Count(math.MaxUint64)}, {"bytes", Bytes(5)}, {"share", Share(0.25)},
		{"took", 1500 * time.Microsecond}, {"back", -time.Second}, {"at", at}, {"on", "yes"}, {"off", "no"}, {"said", "client"},
		{"list", List{Fields: Fields{{"inner", List{Fields: Fields{{"x", Count(1)}}}}}}}, {"none", Count(0)},
	}}, NoAnswer: "busy"}
	got, err := ToInspection(sent(t, FromInspection(Inspection{Actor: want.Actor, List: List{Fields: fields}, NoAnswer: "busy"})))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
	}
	if kind, state := got.Kind(), got.State(); kind != "vnode" || state != "failed" {
		t.Errorf("kind %s, state %s", kind, state)
	}
	for want, a := range map[string]Actor{"busy": {InHandler: 1, Queued: 1}, "waiting": {Control: 1}, "idle": {}} {
		if a.State() != want {
			t.Errorf("%+v is %s, want %s", a, a.State(), want)
		}
	}
}

// TestWhatIsLongIsCut: whatever an actor says can be sent, and is taken at the other end.
func TestWhatIsLongIsCut(t *testing.T) {
	var deep, wide, many Fields
	for range 2 * MaxFieldDepth {
		deep = Fields{}.Add("deeper", append(deep, Field{"x", "y"}))
	}
	for range MaxListed + 1 {
		wide = wide.Add("x", 1)
	}
	for range MaxFields / MaxListed {
		many = many.Add("list", wide[:MaxListed])
	}
	hostile := Actor{Name: strings.Repeat("ä", MaxActorName), Parent: "\xff\xfe", Age: math.MaxInt64, Oldest: math.MinInt64, Panic: &ActorFault{
		Reason: strings.Repeat("\xff", 10*maxReason), Message: strings.Repeat("m", 10*MaxActorName), Ago: 1, Stack: strings.Repeat("s", 10*maxStack)}}
	all := Fields{}.Add("deep", deep).Add("wide", wide).Add("", "no name").Add(strings.Repeat("n", 2*MaxFieldName), strings.Repeat("€", MaxFieldText)).
		Add("key", "\xff\x00").Add("nan", Share(math.NaN())).Add("inf", Share(math.Inf(1))).Add("old", time.Unix(-5, 0)).Add("late", time.Unix(1<<40, 0)).
		Add("long", time.Duration(math.MinInt64))
	all = append(append(all, Field{"odd", nil}), many...)
	got, err := ToInspection(sent(t, FromInspection(Inspection{Actor: hostile, List: List{Fields: all}, NoAnswer: strings.Repeat("z", 2*MaxFieldText)})))
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Name) > MaxActorName || !strings.HasSuffix(got.Name, "ä…") || got.Oldest != 0 || got.Age <= 0 || got.Panic.Ago != time.Microsecond || !got.More {
		t.Errorf("the actor %+v", got.Actor)
	}
	value := func(name string) any {
		for _, f := range got.Fields {
			if f.Name == name {
				return f.Value
			}
		}
		t.Errorf("no field %q", name)
		return nil
	}
	if l := value("wide").(List); len(l.Fields) != MaxListed || !l.More {
		t.Errorf("of a wide list came %d, more: %v", len(l.Fields), l.More)
	}
	if v := value("-"); v != "no name" {
		t.Errorf("without a name: %v", v)
	}
	if v := value("key").(string); !utf8.ValidString(v) {
		t.Errorf("a key is %q", v)
	}
	depth := 0
	for l, ok := value("deep").(List); ok && len(l.Fields) > 0; l, ok = l.Fields[0].Value.(List) {
		depth++
	}
	if depth != MaxFieldDepth-1 {
		t.Errorf("lists lie %d deep", depth)
	}
}

// TestActors: a list comes in parts, each behind the one before.
func TestActors(t *testing.T) {
	reply := func(names ...string) *ActorsReply {
		out := &ActorsReply{Left: 7}
		for _, n := range names {
			out.Actors = append(out.Actors, FromActor(someActor(n)))
		}
		return out
	}
	all, left, err := ToActors(sent(t, reply("a", "b")), "")
	if err != nil || left != 7 || !reflect.DeepEqual(all, []Actor{someActor("a"), someActor("b")}) {
		t.Errorf("%+v, %d, %v", all, left, err)
	}
	many := &ActorsReply{}
	for range MaxActors + 1 {
		many.Actors = append(many.Actors, &ActorState{Name: "x"})
	}
	long := reply("c")
	long.Actors[0].LastPanic.Stack = strings.Repeat("s", maxStack+1)
	for name, m := range map[string]*ActorsReply{
		"no name": {Actors: []*ActorState{{}}}, "a long name": {Actors: []*ActorState{{Name: strings.Repeat("x", MaxActorName+1)}}}, "nil": {Actors: []*ActorState{nil}},
		"a long parent": {Actors: []*ActorState{{Name: "x", Parent: strings.Repeat("x", MaxActorName+1)}}},
		"again":         reply("c", "c"), "not in order": reply("d", "c"), "the part before": reply("b"), "without an end": reply(), "too many": many, "a long stack": long,
	} {
		if got, _, err := ToActors(m, "b"); !errors.Is(err, ErrBounds) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for asked, want := range map[uint32]int{0: MaxActors, 1: 1, MaxActors: MaxActors, math.MaxUint32: MaxActors} {
		if got, err := ToActorsRequest(&ActorsRequest{Limit: asked}); err != nil || got != want {
			t.Errorf("a limit of %d is %d, %v", asked, got, err)
		}
	}
	for _, m := range []*ActorsRequest{{Pattern: strings.Repeat("*", MaxPattern+1)}, {After: strings.Repeat("x", MaxActorName+1)}} {
		if _, err := ToActorsRequest(m); !errors.Is(err, ErrBounds) {
			t.Errorf("%v: %v", m, err)
		}
	}
}

func TestFaults(t *testing.T) {
	want := []NodeFault{{time.UnixMilli(5).UTC(), "vnode/1", "boom", 3}, {time.UnixMilli(4).UTC(), "", "it broke", 1}}
	m := sent(t, FromFaults(want, 9))
	if got, err := ToFaults(m); err != nil || m.GetMore() != 9 || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	cutting := FromFaults([]NodeFault{{time.Now(), strings.Repeat("\xff", 2*MaxActorName), strings.Repeat("x", 2*MaxFieldText), 1}}, 0)
	if _, err := ToFaults(sent(t, cutting)); err != nil {
		t.Errorf("what is long: %v", err)
	}
	if got := ToErrorsLimit(&ErrorsRequest{Limit: 1 << 31}); got != MaxErrors {
		t.Errorf("a limit of %d", got)
	}
	for name, e := range map[string]*NodeError{
		"before 1970": {TimeMs: -1}, "after all": {TimeMs: math.MaxInt64}, "long": {Text: strings.Repeat("x", MaxFieldText+1)}, "a long name": {Actor: strings.Repeat("x", MaxActorName+1)},
	} {
		if _, err := ToFaults(&ErrorsReply{Errors: []*NodeError{e}}); !errors.Is(err, ErrBounds) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := ToFaults(&ErrorsReply{Errors: make([]*NodeError, MaxErrors+1)}); !errors.Is(err, ErrBounds) {
		t.Errorf("too many: %v", err)
	}
}

// TestHostileFields are refused.
func TestHostileFields(t *testing.T) {
	one := func(f *ActorField) *ActorFields { return &ActorFields{Fields: []*ActorField{f}} }
	list := func(in *ActorFields) *ActorFields { return one(&ActorField{Name: "l", Value: &ActorField_List{in}}) }
	x := func() *ActorField { return &ActorField{Name: "x", Value: &ActorField_Count{1}} }
	var wide, many ActorFields
	for range MaxListed + 1 {
		wide.Fields = append(wide.Fields, x())
	}
	for range MaxFields / MaxListed {
		many.Fields = append(many.Fields, &ActorField{Name: "l", Value: &ActorField_List{&ActorFields{Fields: wide.Fields[:MaxListed]}}})
	}
	for name, m := range map[string]*ActorFields{
		"no name": one(&ActorField{}), "nil": {Fields: []*ActorField{nil}}, "a long name": one(&ActorField{Name: strings.Repeat("n", MaxFieldName+1)}),
		"a long text":   one(&ActorField{Name: "x", Value: &ActorField_Text{strings.Repeat("n", MaxFieldText+1)}}),
		"no number":     one(&ActorField{Name: "x", Value: &ActorField_Share{math.NaN()}}),
		"without end":   one(&ActorField{Name: "x", Value: &ActorField_Share{math.Inf(-1)}}),
		"a long time":   one(&ActorField{Name: "x", Value: &ActorField_DurationUs{math.MaxInt64}}),
		"a long past":   one(&ActorField{Name: "x", Value: &ActorField_DurationUs{math.MinInt64}}),
		"a strange day": one(&ActorField{Name: "x", Value: &ActorField_TimeMs{math.MaxInt64}}),
		"wide":          &wide, "wide inside": list(&wide), "many": &many, "deep": list(list(list(list(one(x()))))),
	} {
		if got, err := ToFields(m); !errors.Is(err, ErrBounds) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	for name, m := range map[string]*ActorFields{"nothing": nil, "an empty list": list(nil), "of a later release": one(&ActorField{Name: "x"})} {
		if _, err := ToFields(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzToInspection(f *testing.F) {
	seeds := []*InspectReply{FromInspection(Inspection{Actor: someActor("a"), List: List{Fields: Fields{}.Add("l", Fields{}.Add("x", 1)).Add("t", time.Now())}})}
	fuzz(f, seeds, func(t testing.TB, m *InspectReply) {
		i, err := ToInspection(m)
		if err != nil {
			return
		}
		again, err := ToInspection(sent(t, FromInspection(i)))
		if err != nil || again.Name != i.Name || len(again.Fields) != len(i.Fields) {
			t.Errorf("%+v came back as %+v, %v", i, again, err)
		}
	})
}
