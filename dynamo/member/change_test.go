package member

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/bucket"
)

// newcomer is a change that lets a node join; store tells its stores apart.
func newcomer(id dynamo.NodeID, store byte) Change {
	return Change{Kind: Join, Node: id, Member: Member{ID: id, Capacity: 1, Store: StoreID{store}, Start: 1, Address: string(id) + ":7800"}}
}

func of(kind ChangeKind, id dynamo.NodeID) Change { return Change{Kind: kind, Node: id} }

func replace(node, with dynamo.NodeID, dead bool) Change {
	return Change{Kind: Replace, Node: node, With: with, Dead: dead}
}

// staged is d with the changes staged.
func staged(t testing.TB, d Document, changes ...Change) Document {
	t.Helper()
	for _, c := range changes {
		next, err := d.Stage(c)
		if err != nil {
			t.Fatalf("%v: %v", c, err)
		}
		if err := next.Validate(); err != nil || next.Version != d.Version+1 {
			t.Fatalf("%v: version %d after %d: %v", c, next.Version, d.Version, err)
		}
		d = next
	}
	return d
}

func committed(t testing.TB, d Document, changes ...Change) Document {
	t.Helper()
	d = staged(t, d, changes...)
	next, err := d.Commit(d.Version)
	if err != nil {
		t.Fatalf("commit of %v: %v", changes, err)
	}
	if err := next.Validate(); err != nil || next.Version != d.Version+1 || len(next.Staged) != 0 {
		t.Fatalf("commit of %v: %v: %v", changes, next, err)
	}
	return next
}

// perfect are the facts of members that know all, have filled all and keep nothing
// for others.
func perfect(d Document) map[dynamo.NodeID]Facts {
	out := map[dynamo.NodeID]Facts{}
	for _, m := range d.Members {
		f := Facts{Store: m.Store, Known: d.Version, Target: d.Target(), Idle: true}
		for p := range dynamo.Partition(d.Settled.Partitions()) {
			f.Filled = append(f.Filled, p)
		}
		out[m.ID] = f
	}
	return out
}

// ended is d after all that is under way.
func ended(t testing.TB, d Document) Document {
	t.Helper()
	for range 30 {
		next, changed := d.Advance(perfect(d))
		if !changed {
			return d
		}
		if err := next.Validate(); err != nil || next.Version != d.Version+1 {
			t.Fatalf("version %d after %d: %v", next.Version, d.Version, err)
		}
		d = next
	}
	t.Fatalf("the movement does not end: %v %+v", d, d.Movement)
	return d
}

func status(d Document, id dynamo.NodeID) string {
	m, ok := d.Member(id)
	switch {
	case !ok:
		return "none"
	case m.Removed:
		return "removed " + m.Status.String()
	}
	return m.Status.String()
}

func TestChanges(t *testing.T) {
	cases := map[string]struct {
		changes []Change
		// soon and finally are statuses after the commit and in the end, moves
		// says whether the ring changes.
		soon, finally map[dynamo.NodeID]string
		moves         bool
	}{
		"join": {[]Change{newcomer("d", 9)}, map[dynamo.NodeID]string{"d": "joining", "a": "up"}, map[dynamo.NodeID]string{"d": "up"}, true},
		"join of three": {
			[]Change{newcomer("d", 9), newcomer("f", 10), newcomer("e", 11)},
			map[dynamo.NodeID]string{"d": "joining", "e": "joining", "f": "joining"}, map[dynamo.NodeID]string{"d": "up", "e": "up", "f": "up"}, true,
		},
		"leave":  {[]Change{of(Leave, "b")}, map[dynamo.NodeID]string{"b": "leaving"}, map[dynamo.NodeID]string{"b": "gone"}, true},
		"remove": {[]Change{of(Remove, "b")}, map[dynamo.NodeID]string{"b": "removed leaving"}, map[dynamo.NodeID]string{"b": "removed gone"}, true},
		"replace": {
			[]Change{newcomer("d", 9), replace("b", "d", false)},
			map[dynamo.NodeID]string{"b": "leaving", "d": "joining"}, map[dynamo.NodeID]string{"b": "gone", "d": "up"}, true,
		},
		"replace of a dead one": {
			[]Change{newcomer("d", 9), replace("b", "d", true)},
			map[dynamo.NodeID]string{"b": "removed leaving", "d": "joining"}, map[dynamo.NodeID]string{"b": "removed gone", "d": "up"}, true,
		},
		"join and leave":   {[]Change{of(Leave, "c"), newcomer("d", 9)}, map[dynamo.NodeID]string{"c": "leaving", "d": "joining"}, map[dynamo.NodeID]string{"c": "gone", "d": "up"}, true},
		"capacity":         {[]Change{{Kind: SetCapacity, Node: "a", Capacity: 5}}, map[dynamo.NodeID]string{"a": "up"}, nil, true},
		"zone":             {[]Change{{Kind: SetZone, Node: "a", Zone: "z"}}, map[dynamo.NodeID]string{"a": "up"}, nil, false},
		"zone and back":    {[]Change{{Kind: SetZone, Node: "a", Zone: "z"}, {Kind: SetZone, Node: "a"}}, nil, nil, false},
		"join with a zone": {[]Change{newcomer("d", 9), {Kind: SetZone, Node: "d", Zone: "z"}}, nil, map[dynamo.NodeID]string{"d": "up"}, true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			before := staged(t, found(t, founding()), c.changes...)
			plan, err := before.Plan()
			if err != nil {
				t.Fatal(err)
			}
			d, err := before.Commit(before.Version)
			if err != nil || !d.Equal(plan.Document) || plan.Queued || !plan.From.Equal(before.Settled) {
				t.Fatalf("the commit is not what was planned: %v, %v", d, err)
			}
			if (d.Next != nil) != c.moves || plan.To.Equal(plan.From) == c.moves || plan.Moves != plan.From.Moves(plan.To, 3) {
				t.Errorf("next %v, %d moves", d.Next, plan.Moves)
			}
			end := ended(t, d)
			if !end.Settled.Equal(plan.To) || end.Next != nil || !end.Movement.equal(Movement{}) {
				t.Errorf("ended as %v, %+v", end, end.Movement)
			}
			for id, want := range c.soon {
				if got := status(d, id); got != want {
					t.Errorf("%s is %s after the commit, want %s", id, got, want)
				}
			}
			for id, want := range c.finally {
				if got := status(end, id); got != want {
					t.Errorf("%s is %s in the end, want %s", id, got, want)
				}
			}
		})
	}
}

// TestReplaceTakesPlaces: only the data of the node that goes moves.
func TestReplaceTakesPlaces(t *testing.T) {
	d := committed(t, found(t, founding()), newcomer("d", 9), replace("b", "d", false))
	want := d.Settled.Renamed(map[dynamo.NodeID]dynamo.NodeID{"b": "d"})
	if !d.Next.SameLists(want) {
		t.Error("d does not have the places of b")
	}
}

// TestStageRefuses: each with the exact error and with what it is about.
func TestStageRefuses(t *testing.T) {
	base := found(t, founding())
	gone := ended(t, committed(t, committed(t, base, newcomer("d", 9)), of(Leave, "d")))
	if status(gone, "d") != "gone" {
		t.Fatalf("d is %s", status(gone, "d"))
	}
	queued := committed(t, committed(t, base, newcomer("d", 9)), newcomer("e", 10))
	malformed := func(f func(*Change)) Change { c := newcomer("d", 9); f(&c); return c }
	cases := map[string]struct {
		d    Document
		last Change
		want error
		says string
	}{
		"leave of nobody":             {base, of(Leave, "x"), ErrUnknownMember, "x"},
		"leave of one that is gone":   {gone, of(Leave, "d"), ErrUnknownMember, "d"},
		"remove of nobody":            {base, of(Remove, "x"), ErrUnknownMember, "x"},
		"capacity of nobody":          {base, Change{Kind: SetCapacity, Node: "x", Capacity: 1}, ErrUnknownMember, "x"},
		"zone of one that is gone":    {gone, Change{Kind: SetZone, Node: "d"}, ErrUnknownMember, "d"},
		"leave twice":                 {staged(t, base, of(Leave, "a")), of(Leave, "a"), ErrStagedAlready, "clear what is staged first"},
		"leave of one that leaves":    {committed(t, base, of(Leave, "a")), of(Leave, "a"), ErrStagedAlready, "a is leaving"},
		"leave and remove":            {staged(t, base, of(Leave, "a")), of(Remove, "a"), ErrStagedAlready, "leave a"},
		"leave of one that replaces":  {staged(t, base, newcomer("d", 9), replace("a", "d", false)), of(Leave, "d"), ErrStagedAlready, "join d"},
		"one replaces two":            {staged(t, base, newcomer("d", 9), replace("a", "d", false)), replace("b", "d", false), ErrStagedAlready, "replace a d"},
		"join of a member":            {base, newcomer("a", 9), ErrAlreadyMember, "a"},
		"join twice":                  {staged(t, base, newcomer("d", 9)), newcomer("d", 9), ErrStagedAlready, "join d"},
		"join with a member's store":  {base, newcomer("d", 1), ErrAlreadyMember, "must not be copied"},
		"two with one store":          {staged(t, base, newcomer("d", 9)), newcomer("e", 9), ErrAlreadyMember, "the store of d"},
		"back with the old store":     {gone, newcomer("d", 9), ErrRemovedStore, "reset its data directory"},
		"another with the old store":  {gone, newcomer("e", 9), ErrRemovedStore, "as d"},
		"the last leaves":             {staged(t, base, of(Leave, "a"), of(Remove, "b")), of(Leave, "c"), ErrLastMember, "nobody would hold its data"},
		"replaced by one not staged":  {base, replace("a", "d", false), ErrUnknownMember, "must be staged to join"},
		"replaced by one that left":   {gone, replace("a", "d", false), ErrUnknownMember, "must be staged to join"},
		"replaced by one with data":   {base, replace("a", "b", true), ErrHoldsData, "only by a node that is new"},
		"replaced by one that fills":  {queued, replace("a", "d", false), ErrHoldsData, "d is a member that has partitions"},
		"replaced by itself":          {queued, replace("e", "e", false), ErrHoldsData, "only by a node that is new"},
		"replaced by one that leaves": {staged(t, queued, of(Leave, "e")), replace("a", "e", false), ErrHoldsData, "e is a member"},
		"replace of nobody":           {staged(t, base, newcomer("d", 9)), replace("x", "d", false), ErrUnknownMember, "x"},
		"capacity 0":                  {base, Change{Kind: SetCapacity, Node: "a"}, ErrValue, "allowed are 1 to 10000"},
		"capacity too large":          {base, Change{Kind: SetCapacity, Node: "a", Capacity: 10_001}, ErrValue, "capacity 10001"},
		"zone too long":               {base, Change{Kind: SetZone, Node: "a", Zone: strings.Repeat("z", dynamo.MaxNodeName+1)}, ErrValue, "at most"},
		"no such kind":                {base, of(17, "a"), ErrValue, "unknown(17)"},
		"no name":                     {base, of(Leave, ""), ErrValue, ""},
		"join under two names":        {base, malformed(func(c *Change) { c.Node = "e" }), ErrValue, `e joins as "d"`},
		"join without store":          {base, malformed(func(c *Change) { c.Member.Store = StoreID{} }), ErrValue, "store 0000"},
		"join without capacity":       {base, malformed(func(c *Change) { c.Member.Capacity = 0 }), ErrValue, "capacity 0"},
		"join with a long address":    {base, malformed(func(c *Change) { c.Member.Address = strings.Repeat("a", 257) }), ErrValue, "257 bytes, at most 256"},
		"join with a long zone":       {base, malformed(func(c *Change) { c.Member.Zone = strings.Repeat("a", 257) }), ErrValue, "at most"},
		"replace by a bad name":       {base, replace("a", "a b", false), ErrValue, "a b"},
	}
	outdated := staged(t, committed(t, base, of(Leave, "a")), of(Remove, "a"))
	outdated = ended(t, outdated)
	if _, err := outdated.Plan(); !errors.Is(err, ErrUnknownMember) || !strings.Contains(err.Error(), "clear what is staged") {
		t.Errorf("a member that is to be removed has gone: %v", err)
	}
	if _, err := outdated.Stage(of(Leave, "b")); !errors.Is(err, ErrUnknownMember) || !strings.Contains(err.Error(), "clear what is staged") {
		t.Errorf("another change after that: %v", err)
	}
	sentinels := []error{
		ErrUnknownMember, ErrAlreadyMember, ErrStagedAlready, ErrNothingStaged, ErrLastMember, ErrHoldsData, ErrRemovedStore, ErrValue, ErrPlanChanged,
	}
	for name, c := range cases {
		d, err := c.d.Stage(c.last)
		if !d.Equal(c.d) {
			t.Errorf("%s: the document changed", name)
		}
		for _, s := range sentinels {
			if errors.Is(err, s) != (s == c.want) {
				t.Errorf("%s: got %v, want %v alone", name, err, c.want)
			}
		}
		if err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %q does not say %q", name, err, c.says)
		}
	}
	if d, err := base.Stage(of(Leave, "a")); err != nil || len(base.Staged) != 0 || len(d.Staged) != 1 {
		t.Errorf("a document was changed in place: %v, %v", base.Staged, err)
	}
	if back := committed(t, gone, newcomer("d", 12)); status(back, "d") != "joining" {
		t.Errorf("d is %s with its new store", status(back, "d"))
	}
}

func TestClearPlanCommit(t *testing.T) {
	base := found(t, founding())
	for name, f := range map[string]func() error{
		"clear":  func() error { _, err := base.Clear(); return err },
		"plan":   func() error { _, err := base.Plan(); return err },
		"commit": func() error { _, err := base.Commit(base.Version); return err },
	} {
		if err := f(); !errors.Is(err, ErrNothingStaged) {
			t.Errorf("%s of nothing: %v", name, err)
		}
	}
	d := staged(t, base, newcomer("d", 9), Change{Kind: SetCapacity, Node: "a", Capacity: 2}, Change{Kind: SetCapacity, Node: "a", Capacity: 3})
	if len(d.Staged) != 2 || d.Staged[1].Capacity != 3 {
		t.Errorf("staged %v: a later capacity counts", d.Staged)
	}
	if _, err := d.Commit(d.Version - 1); !errors.Is(err, ErrPlanChanged) || !strings.Contains(err.Error(), "look at the plan again") {
		t.Errorf("commit of an old plan: %v", err)
	}
	cleared, err := d.Clear()
	if err != nil || len(cleared.Staged) != 0 || cleared.Version != d.Version+1 || len(d.Staged) != 2 {
		t.Errorf("cleared %v: %v", cleared.Staged, err)
	}
	var said []string
	for _, c := range append(d.Staged, replace("a", "d", true), of(Leave, "b"), Change{Kind: SetZone, Node: "a", Zone: "z"}, of(Remove, "c")) {
		said = append(said, c.String())
	}
	if got := strings.Join(said, ", "); got != "join d, set-capacity a 3, replace a d --dead, leave b, set-zone a z, remove c" {
		t.Errorf("changes say %q", got)
	}
}

// TestChangesDuringMovement: they are queued, and made when it is over.
func TestChangesDuringMovement(t *testing.T) {
	base := found(t, founding())
	cases := map[string]struct {
		first, second []Change
		finally       map[dynamo.NodeID]string
	}{
		"another joins":      {[]Change{newcomer("d", 9)}, []Change{newcomer("e", 10)}, map[dynamo.NodeID]string{"d": "up", "e": "up"}},
		"receiver removed":   {[]Change{newcomer("d", 9)}, []Change{of(Remove, "d")}, map[dynamo.NodeID]string{"d": "removed gone"}},
		"source removed":     {[]Change{newcomer("d", 9)}, []Change{of(Remove, "a")}, map[dynamo.NodeID]string{"a": "removed gone", "d": "up"}},
		"joining one leaves": {[]Change{newcomer("d", 9)}, []Change{of(Leave, "d")}, map[dynamo.NodeID]string{"d": "gone"}},
		"leaving one dies":   {[]Change{newcomer("d", 9), of(Leave, "a")}, []Change{of(Remove, "a")}, map[dynamo.NodeID]string{"a": "removed gone", "d": "up"}},
		"replace": {
			[]Change{newcomer("d", 9)}, []Change{newcomer("e", 10), replace("d", "e", true)},
			map[dynamo.NodeID]string{"d": "removed gone", "e": "up"},
		},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			first := committed(t, base, c.first...)
			before := staged(t, first, c.second...)
			plan, err := before.Plan()
			if err != nil || !plan.Queued || !plan.To.Equal(*first.Next) || len(plan.Warnings) != 1 || plan.Moves != 0 {
				t.Fatalf("planned %+v, %v", plan, err)
			}
			d := committed(t, first, c.second...)
			if !d.Movement.Queued || !d.Next.Equal(*first.Next) || d.Movement.Announced != first.Movement.Announced {
				t.Fatalf("the movement under way changed: %+v", d.Movement)
			}
			for _, f := range d.Movement.Filling {
				if m, _ := d.Member(f.Node); m.Removed {
					t.Errorf("%s is still to be filled", f.Node)
				}
			}
			facts := perfect(d)
			for _, m := range d.Members {
				if m.Removed {
					delete(facts, m.ID) // nobody waits for it
				}
			}
			if next, changed := d.Advance(facts); !changed || next.Movement.Joint == 0 {
				t.Errorf("the movement does not go on: %+v", next.Movement)
			}
			end := ended(t, d)
			for id, want := range c.finally {
				if got := status(end, id); got != want {
					t.Errorf("%s is %s in the end, want %s", id, got, want)
				}
			}
			for _, m := range end.Members {
				if m.Status == Gone && end.Settled.Has(m.ID) {
					t.Errorf("%s is gone and has partitions", m.ID)
				}
			}
		})
	}
}

func TestCreateBucket(t *testing.T) {
	base := found(t, founding())
	carts := Bucket{"carts", bucket.Default()}
	d, err := base.CreateBucket(carts, false)
	if err != nil || d.Version != 2 || len(base.Buckets) != 0 {
		t.Fatalf("%v: %v", d, err)
	}
	with := func(f func(*bucket.Properties)) Bucket { b := carts; f(&b.Properties); return b }
	fast := with(func(p *bucket.Properties) { p.Quorum.R = 1 })
	cases := map[string]struct {
		b      Bucket
		change bool
		want   error
	}{
		"again":            {carts, false, ErrBucketExists},
		"change r":         {fast, true, nil},
		"change n":         {with(func(p *bucket.Properties) { p.Quorum.N = 5 }), true, bucket.ErrFixed},
		"change conflicts": {with(func(p *bucket.Properties) { p.Conflicts = dynamo.LastWriteWins }), true, bucket.ErrFixed},
		"change of none":   {Bucket{"x", bucket.Default()}, true, ErrNoBucket},
		"malformed":        {with(func(p *bucket.Properties) { p.Quorum.W = 9 }), true, ErrBucket},
		"no name":          {Bucket{"", bucket.Default()}, false, ErrBucket},
		"another":          {Bucket{"able", bucket.Default()}, false, nil},
	}
	for name, c := range cases {
		next, err := d.CreateBucket(c.b, c.change)
		if !errors.Is(err, c.want) || err == nil && next.Version != 3 || err != nil && !next.Equal(d) {
			t.Errorf("%s: version %d, %v, want %v", name, next.Version, err, c.want)
		}
		if got, _ := next.Bucket(c.b.Name); err == nil && got != c.b.Properties || !slices.IsSortedFunc(next.Buckets, func(a, b Bucket) int { return strings.Compare(a.Name, b.Name) }) {
			t.Errorf("%s: %+v", name, next.Buckets)
		}
	}
}
