package link

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/messages"
)

func TestDate(t *testing.T) {
	// Ours said 100 s when the stamp was made, the peer's 1000 s when it answered.
	known := bound{own: 100 * time.Second, peer: 1000 * time.Second}
	for name, c := range map[string]struct {
		bound bound
		peer  int64
		want  int64
	}{
		"none stays none":              {known, 0, 0},
		"none without a bound":         {bound{}, 0, 0},
		"without a bound":              {bound{}, 1_000_000, unknown},
		"when it answered":             {known, 1_000_000, 99_998},
		"before":                       {known, 990_000, 100_000 - 10_001 - 40},
		"after":                        {known, 1_010_000, 100_000 + 9_999 - 40},
		"before this process began":    {bound{own: time.Millisecond, peer: 1000 * time.Second}, 900_000, unknown},
		"no time":                      {known, -1, unknown},
		"the lowest":                   {known, math.MinInt64, unknown},
		"the peer's clock is far off":  {bound{own: time.Second, peer: math.MaxInt64}, 1, unknown},
		"ours is":                      {bound{own: math.MaxInt64, peer: 1}, 1, math.MaxInt64/1_000_000 - 1},
		"an answer rounded up is late": {bound{own: time.Second, peer: time.Second + time.Millisecond - 1}, 1000, 998},
	} {
		if got := c.bound.date(c.peer); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
	for _, own := range []time.Duration{1, math.MaxInt64} {
		if got := (bound{own: own, peer: 1}).date(math.MaxInt64); got < math.MaxInt64/2 {
			t.Errorf("the highest is %d, as if it were long ago", got)
		}
	}
}

// world is two clocks that are set at random and run at different rates.
type world struct {
	offset [2]float64 // ns
	rate   [2]float64
}

// says is what a clock says at a time, in ns.
func (w *world) says(end int, at float64) time.Duration {
	return time.Duration(w.offset[end] + w.rate[end]*at)
}

// TestDateIsNeverLate: whatever clocks say and however long an answer is under way, or
// who sends it stands still, a date is not translated to a moment later than the one that
// it means; nor, but for the drift of the clocks, to one that is earlier by more than the
// round trip.
func TestDateIsNeverLate(t *testing.T) {
	const ms, minute = 1e6, 60e9
	rapid.Check(t, func(t *rapid.T) {
		var w world
		for i := range w.rate {
			w.offset[i] = rapid.Float64Range(1e9, 1e18).Draw(t, "offset")
			w.rate[i] = rapid.Float64Range(0.999, 1.001).Draw(t, "rate")
		}
		pause := func(what string) float64 { // mostly short, at times very long
			if rapid.IntRange(0, 9).Draw(t, what+" stands still") == 0 {
				return rapid.Float64Range(0, 60*minute).Draw(t, what)
			}
			return rapid.Float64Range(0, 300*ms).Draw(t, what)
		}
		const us, peer = 0, 1
		now, asked, answered := 0.0, 0.0, 0.0
		var b bound
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			if b == (bound{}) || rapid.Bool().Draw(t, "heartbeat") {
				asked = now
				answered = asked + pause("to the answer")
				now = answered + pause("back")
				b = bound{own: w.says(us, asked), peer: w.says(peer, answered)}
			}
			read := max(0, now-rapid.Float64Range(0, 30*minute).Draw(t, "age"))
			now += pause("the message")
			if rapid.Bool().Draw(t, "read after the answer") {
				read = answered + rapid.Float64Range(0, 1).Draw(t, "when")*(now-answered)
			}
			date, meant := b.date(w.says(peer, read).Milliseconds()), w.says(us, read)
			if date > meant.Milliseconds() {
				t.Fatalf("read at %v, translated to %d ms: %d ms late", meant, date, date-meant.Milliseconds())
			}
			// Rounding of clocks of 1e18 ns in floating point is part of it.
			early := float64(meant.Milliseconds()-date) * ms
			if most := 1.002*(answered-asked) + math.Abs(read-answered)/100 + 5*ms; early > most {
				t.Fatalf("%v too early, of a round trip of %v", time.Duration(early), time.Duration(answered-asked))
			}
		}
	})
}

// offClock is a clock that is off by so much.
func offClock(by time.Duration) func() time.Duration {
	return func() time.Duration { return rt.Clock() + by }
}

func (e *end) millis() int64 { return e.links.clock().Milliseconds() }

// datedMessages are those that have records.
func datedMessages() []messages.Dated {
	return []messages.Dated{
		&messages.ReplicateRequest{}, &messages.ReadReply{}, &messages.HandoffRequest{}, &messages.FillReply{},
		&messages.ExchangeRequest{}, &messages.ExchangeReply{},
	}
}

// TestDatesCross: each kind of message that is dated arrives with a date that means the
// same, in both directions and on both lanes, from the first one on.
func TestDatesCross(t *testing.T) {
	newNode := func(id string, by time.Duration) *end {
		return newEnd(t, id, func(c *Config) { c.Clock = offClock(by) })
	}
	a, b := newNode("a", 5*time.Hour), newNode("b", -70*time.Hour)
	inboxes := map[*end]map[string]*inbox{a: {}, b: {}}
	targets := map[messages.Number]string{10: "vnode/1", 11: "get/1", 12: "vnode/1", 14: "vnode/1", 19: "fill/1", 33: "vnode/1", 34: "exchange/1"}
	for e, all := range inboxes {
		for _, name := range []string{"vnode/1", "get/1", "fill/1", "exchange/1"} {
			all[name] = e.inbox(name, 10)
		}
	}
	meet(t, a, b)
	const age = 5 * 60 * 1000
	for _, way := range [][2]*end{{a, b}, {b, a}} {
		from, to := way[0], way[1]
		for _, m := range datedMessages() {
			number, _ := messages.NumberOf(m)
			target := targets[number]
			sent := from.millis() - age
			// The bound may be of the hello, from before what follows.
			known := to.millis()
			m.SetReadMs(sent)
			inboxes[from]["vnode/1"].send(to.pid(target), m)
			got := next[messages.Dated](t, inboxes[to][target]).GetReadMs()
			latest := to.millis() - age
			if got > latest || got < known-age-10_000 {
				t.Errorf("%s to %s: a %T of %d ms before: the date is %d ms before", from.id, to.id, m, age, to.millis()-got)
			}
			m2 := proto.Clone(m.(proto.Message)).(messages.Dated)
			m2.SetReadMs(0)
			inboxes[from]["vnode/1"].send(to.pid(target), m2)
			if got := next[messages.Dated](t, inboxes[to][target]).GetReadMs(); got != 0 {
				t.Errorf("%s to %s: no date became %d", from.id, to.id, got)
			}
		}
	}
}

// replication is a frame with a record of a date.
func replication(t testing.TB, ms int64) []byte {
	t.Helper()
	payload, err := proto.Marshal(&messages.ReplicateRequest{ReadMs: ms})
	if err != nil {
		t.Fatal(err)
	}
	return frameOf(12, true, "vnode/1", "put/1", payload)
}

// TestDateWithoutAnAnswer: what comes from a peer of whose clock nothing is known is too
// old, whatever it says; what it says in answer to no stamp of ours tells nothing.
func TestDateWithoutAnAnswer(t *testing.T) {
	n := node(t, "a")
	vnode := n.inbox("vnode/1", 10)
	peer := offClock(-time.Hour)
	r := dialRaw(t, n.address)
	hello := rawHello("x", messages.RoleNode, LaneRequest)
	hello.Stamp = uint64(peer())
	kind, body := r.greet(hello)
	welcome, err := parseHello(body)
	if kind != kindWelcome || err != nil {
		t.Fatal(kind, err)
	}
	if welcome.Echo != hello.Stamp || welcome.Stamp == 0 {
		t.Errorf("welcomed with %+v", welcome)
	}
	half := binary.BigEndian.AppendUint64(append(make([]byte, headerLen), kindPong), welcome.Stamp)
	for name, c := range map[string][]byte{
		"nothing":          nil,
		"no stamp of ours": appendPong(nil, 0, peer()),
		"one to come":      appendPong(nil, uint64(n.links.clock()+time.Hour), peer()),
		"no clock":         appendPong(nil, welcome.Stamp, 0),
		"half an answer":   endFrame(half, 0),
	} {
		r.write(append(c, replication(t, peer().Milliseconds())...))
		if got := next[*messages.ReplicateRequest](t, vnode).GetReadMs(); got != unknown {
			t.Errorf("%s: the date is %d", name, got)
		}
	}
	for _, took := range []time.Duration{0, time.Minute} {
		stamp := n.links.clock() - took
		r.write(append(appendPong(nil, uint64(stamp), peer()), replication(t, peer().Milliseconds())...))
		got := next[*messages.ReplicateRequest](t, vnode).GetReadMs()
		if most := stamp.Milliseconds(); got < most-10_000 || got > most+n.millis()-(stamp+took).Milliseconds() {
			t.Errorf("after an answer that took %v: %d ms after the stamp", took, got-most)
		}
	}
}

// TestDiallerAnswersFirst: the acceptor can translate before the first message comes, and
// so can the dialler, by the welcome; but only by one that answers its hello.
func TestDiallerAnswersFirst(t *testing.T) {
	for _, honest := range []bool{true, false} {
		t.Run(fmt.Sprintf("echo=%v", honest), func(t *testing.T) {
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			n := newEnd(t, "a", func(c *Config) { c.Heartbeat, c.Silence = time.Hour, 2*time.Hour })
			vnode := n.inbox("vnode/1", 10)
			n.setPeer("z", listener.Addr().String())
			c, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			r := &raw{t: t, Conn: c, br: bufio.NewReader(c)}
			_, body := r.read()
			hello, err := parseHello(body)
			if err != nil || hello.Stamp == 0 {
				t.Fatalf("%+v, %v", hello, err)
			}
			peer := offClock(24 * time.Hour)
			welcome := rawHello("z", messages.RoleNode, LaneRequest)
			welcome.Stamp, welcome.Echo = uint64(peer()), hello.Stamp
			if !honest {
				welcome.Echo--
			}
			r.write(append(appendHello(nil, kindWelcome, &welcome), replication(t, peer().Milliseconds())...))
			kind, body := r.read()
			d := decoder{rest: body}
			if stamp, clock := d.uint64(), d.uint64(); kind != kindPong || stamp != welcome.Stamp || clock < hello.Stamp || d.bad {
				t.Errorf("the first frame is of kind %d and answers %d, not %d", kind, stamp, welcome.Stamp)
			}
			got := next[*messages.ReplicateRequest](t, vnode).GetReadMs()
			if honest && (got > n.millis() || got < n.millis()-10_000) || !honest && got != unknown {
				t.Errorf("the date is %d ms ago", n.millis()-got)
			}
		})
	}
}
