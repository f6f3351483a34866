package member

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/quorum"
	"github.com/dynactor/dynactor/dynamo/ring"
)

func TestTakeOver(t *testing.T) {
	base := found(t, founding())
	gone := ended(t, committed(t, committed(t, base, newcomer("d", 9)), of(Leave, "d")))
	cases := map[string]struct {
		d     Document
		node  dynamo.NodeID
		store byte
		want  error
	}{
		"of a member":      {base, "a", 20, nil},
		"while it is new":  {committed(t, base, newcomer("d", 9)), "d", 20, nil},
		"while it leaves":  {committed(t, base, of(Leave, "a")), "a", 20, nil},
		"of nobody":        {base, "x", 20, ErrUnknownMember},
		"of one gone":      {gone, "d", 20, ErrUnknownMember},
		"of one removed":   {committed(t, base, of(Remove, "a")), "a", 20, ErrRemovedStore},
		"with its store":   {base, "c", 1, ErrAlreadyMember},
		"with another's":   {base, "c", 2, ErrAlreadyMember},
		"with one gone":    {gone, "a", 9, ErrAlreadyMember},
		"with no store id": {base, "a", 0, ErrMember},
	}
	for name, c := range cases {
		had, _ := c.d.Member(c.node)
		d, err := c.d.TakeOver(c.node, had.Store, StoreID{c.store}, 4, "new:1")
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if c.want != nil || err != nil {
			continue
		}
		if m, _ := d.Member(c.node); m.Store != (StoreID{c.store}) || m.Start != 4 || m.Address != "new:1" || d.Version != c.d.Version+1 {
			t.Errorf("%s: %+v", name, m)
		}
		for _, p := range d.Vnodes(c.node) {
			f, lacks := d.Filling(p, c.node)
			if from, to := d.FillRange(f); !lacks || !f.Whole || from > to {
				t.Errorf("%s: partition %d is not filled: %+v", name, p, f)
			}
			asked := d.Reading(p).IsPrimary(p, quorum.MaxN, c.node)
			if d.Authoritative(p, quorum.MaxN, c.node) || asked && !d.Moved(&c.d, p) {
				t.Errorf("%s: partition %d: nothing found is a proof, or old plans are served", name, p)
			}
		}
		if _, err := d.TakeOver(c.node, had.Store, StoreID{77}, 1, "late:1"); !errors.Is(err, ErrPlanChanged) {
			t.Errorf("%s: a second store in the place of the one that is lost: %v", name, err)
		}
		if end := ended(t, d); len(end.Movement.Filling) > 0 || end.Next != nil {
			t.Errorf("%s: ends with %+v", name, end.Movement)
		}
	}
}

// TestFactsOfOthers: facts of another store, for another ring or too old move nothing.
func TestFactsOfOthers(t *testing.T) {
	announced := committed(t, found(t, founding()), newcomer("d", 9))
	joint, _ := announced.Advance(perfect(announced))
	cases := map[string]struct {
		d    Document
		edit func(*Facts)
	}{
		"unknown":       {announced, func(f *Facts) { f.Known = announced.Movement.Announced - 1 }},
		"other store":   {announced, func(f *Facts) { f.Store = StoreID{77} }},
		"fills of a":    {joint, func(f *Facts) { f.Store = StoreID{77} }},
		"other target":  {joint, func(f *Facts) { f.Target-- }},
		"nothing done":  {joint, func(f *Facts) { f.Filled = nil }},
		"leaver is not": {ended(t, joint), func(*Facts) {}},
	}
	for name, c := range cases {
		facts := perfect(c.d)
		for id, f := range facts {
			c.edit(&f)
			facts[id] = f
		}
		if d, _ := c.d.Advance(facts); d.Movement.Joint != c.d.Movement.Joint || len(d.Movement.Filling) != len(c.d.Movement.Filling) {
			t.Errorf("%s: %+v", name, d.Movement)
		}
	}
	leaving := ended(t, found(t, founding()))
	leaving = committed(t, leaving, of(Leave, "a"))
	for range 10 {
		facts := perfect(leaving)
		f := facts["a"]
		f.Idle = false
		facts["a"] = f
		leaving, _ = leaving.Advance(facts)
	}
	if status(leaving, "a") != "leaving" || leaving.Next != nil {
		t.Errorf("a is %s while it keeps data for others", status(leaving, "a"))
	}
	before := perfect(leaving)
	f := before["a"]
	f.Known--
	before["a"] = f
	if next, changed := leaving.Advance(before); changed {
		t.Errorf("a was idle by an earlier version, and is %s", status(next, "a"))
	}
	if end := ended(t, leaving); status(end, "a") != "gone" {
		t.Errorf("a is %s in the end", status(end, "a"))
	}
}

// TestLeaverKeepsItsData: a member that leaves keeps nothing for others as long as it
// is a replica of what it has. That it said so then does not let it go when the ring is
// settled, for it has to hand over what it has.
func TestLeaverKeepsItsData(t *testing.T) {
	d := committed(t, ended(t, found(t, founding())), of(Leave, "a"))
	for d.Next != nil {
		next, changed := d.Advance(perfect(d))
		if !changed {
			t.Fatalf("stuck at version %d", d.Version)
		}
		d = next
	}
	if status(d, "a") != "leaving" {
		t.Fatalf("a is %s as soon as the ring is settled", status(d, "a"))
	}
	if next, _ := d.Advance(perfect(d)); status(next, "a") != "gone" {
		t.Fatalf("a is %s after it said that it keeps nothing", status(next, "a"))
	}
}

// TestEachIsWaitedFor: one member that does not know keeps the movement from becoming
// joint, and the partitions that it is or was a replica of from being done.
func TestEachIsWaitedFor(t *testing.T) {
	announced := committed(t, found(t, founding()), newcomer("d", 9), replace("b", "d", false))
	joint, _ := announced.Advance(perfect(announced))
	switched, _ := joint.Advance(perfect(joint))
	for _, m := range announced.Members {
		late := func(d Document, known uint64) Document {
			facts := perfect(d)
			f := facts[m.ID]
			f.Known = known
			facts[m.ID] = f
			next, _ := d.Advance(facts)
			return next
		}
		if d := late(announced, announced.Version-1); d.Movement.Joint != 0 {
			t.Errorf("joint before %s knows", m.ID)
		}
		d := late(switched, switched.Version-1)
		for p := range dynamo.Partition(switched.Settled.Partitions()) {
			listed := switched.Settled.IsPrimary(p, switched.Depth, m.ID) || switched.Next.IsPrimary(p, switched.Depth, m.ID)
			if switched.Phase(p) != PhaseSwitched || d.Next == nil || (d.Phase(p) == PhaseDone) == listed {
				t.Errorf("partition %d is %v while %s does not know that it is switched", p, d.Phase(p), m.ID)
			}
		}
	}
	if d, _ := switched.Advance(perfect(switched)); d.Next != nil {
		t.Errorf("all know, and %+v", d.Movement)
	}
}

func TestValidateMovement(t *testing.T) {
	base := found(t, founding())
	announced := committed(t, base, newcomer("d", 9))
	joint, _ := announced.Advance(perfect(announced))
	facts := perfect(joint)
	switched, _ := joint.Advance(facts)
	if len(switched.Movement.Switched) == 0 || switched.Next == nil {
		t.Fatalf("%+v", switched.Movement)
	}
	fill := func(p dynamo.Partition, node dynamo.NodeID, whole bool) func(*Document) {
		return func(d *Document) { d.Movement.Filling = []Fill{{Partition: p, Node: node, Whole: whole}} }
	}
	moving := joint.Movement.Filling[0]
	old := slices.DeleteFunc(joint.Settled.Replicas(moving.Partition), func(node dynamo.NodeID) bool { return joint.isNew(moving.Partition, node) })
	stage := func(c Change) func(*Document) { return func(d *Document) { d.Staged = []Change{c} } }
	cases := map[string]struct {
		d    Document
		edit func(*Document)
		want error
	}{
		"good":                        {switched, func(*Document) {}, nil},
		"movement without ring":       {announced, func(d *Document) { d.Next = nil }, ErrMovement},
		"ring without movement":       {announced, func(d *Document) { d.Movement.Announced = 0 }, ErrMovement},
		"announced later":             {announced, func(d *Document) { d.Movement.Announced = d.Version + 1 }, ErrMovement},
		"joint before announced":      {joint, func(d *Document) { d.Movement.Joint = d.Movement.Announced }, ErrMovement},
		"joint later":                 {joint, func(d *Document) { d.Movement.Joint = d.Version + 1 }, ErrMovement},
		"switched, not joint":         {switched, func(d *Document) { d.Movement.Joint = 0 }, ErrMovement},
		"switched before joint":       {switched, func(d *Document) { d.Movement.Switched[0].At = d.Movement.Joint }, ErrMovement},
		"switched later":              {switched, func(d *Document) { d.Movement.Switched[0].At = d.Version + 1 }, ErrMovement},
		"no such partition":           {joint, func(d *Document) { d.Movement.Switched = []Switch{{Partition: 16, At: d.Version}} }, ErrMovement},
		"switched twice":              {switched, func(d *Document) { d.Movement.Switched[1] = d.Movement.Switched[0] }, ErrMovement},
		"fill of no partition":        {joint, fill(16, "d", true), ErrMovement},
		"fill of nobody":              {joint, fill(0, "x", true), ErrMovement},
		"fill without movement":       {base, fill(0, "a", false), ErrMovement},
		"fill of a lost disk":         {base, fill(0, "a", true), nil},
		"fill of one that is not new": {joint, fill(moving.Partition, old[0], false), ErrMovement},
		"fill after the switch":       {switched, fill(moving.Partition, moving.Node, false), ErrMovement},
		"fill twice":                  {joint, func(d *Document) { d.Movement.Filling[1] = d.Movement.Filling[0] }, ErrMovement},
		"accepted of no n":            {joint, func(d *Document) { d.Movement.Filling[0].Accepted = 1 }, ErrMovement},
		"accepted of too many":        {joint, func(d *Document) { d.Movement.Filling[0].Accepted = 1 << 8 }, ErrMovement},
		"accepted":                    {joint, func(d *Document) { d.Movement.Filling[0].Accepted = 1 << 7 }, nil},
		"emptied and never lost":      {joint, func(d *Document) { d.Movement.Filling[0].Emptied = true }, ErrMovement},
		"older next":                  {joint, func(d *Document) { n := d.Next.WithVersion(1); d.Next = &n }, ErrRing},
		"staged: no name":             {base, stage(of(Leave, "")), ErrStaged},
		"staged: no kind":             {base, stage(of(9, "a")), ErrStaged},
		"staged: capacity":            {base, stage(of(SetCapacity, "a")), ErrStaged},
		"staged: other's join":        {base, stage(Change{Kind: Join, Node: "x", Member: Member{ID: "y"}}), ErrStaged},
		"staged: replaced by none":    {base, stage(of(Replace, "a")), ErrStaged},
		"staged: too many":            {base, func(d *Document) { d.Staged = slices.Repeat([]Change{of(Leave, "a")}, MaxMembers+1) }, ErrStaged},
	}
	for name, c := range cases {
		d := c.d.successor()
		d.Version--
		c.edit(&d)
		if err := d.Validate(); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

// journey is a cluster under random changes and facts.
type journey struct {
	t      *rapid.T
	d      Document
	facts  map[dynamo.NodeID]Facts
	fills  map[Fill]int // since Next was announced
	stores byte
	// staged and advanced are the versions of the last change that was staged, and of
	// the last advance.
	staged, advanced uint64
}

func (j *journey) step(next Document, why string) {
	if err := next.Validate(); err != nil || next.Version != j.d.Version+1 {
		j.t.Fatalf("%s: version %d after %d: %v", why, next.Version, j.d.Version, err)
	}
	if next.Next != nil && next.Movement.Announced == next.Version {
		clear(j.fills)
	}
	for _, f := range next.Movement.Filling {
		if _, had := j.d.Filling(f.Partition, f.Node); !had || next.Movement.Announced == next.Version {
			f.Whole = false
			if j.fills[f]++; j.fills[f] > 1 {
				j.t.Fatalf("%s: %+v is filled again", why, f)
			}
		}
	}
	for p := range dynamo.Partition(next.Settled.Partitions()) {
		if was, is := j.d.Phase(p), next.Phase(p); next.Settled.Equal(j.d.Settled) && is < was {
			j.t.Fatalf("%s: partition %d was %v and is %v", why, p, was, is)
		}
		if next.Phase(p) < PhaseSwitched && !slices.Equal(next.Reading(p).Replicas(p), next.Settled.Replicas(p)) {
			j.t.Fatalf("%s: partition %d reads another list", why, p)
		}
	}
	j.d = next
}

func (j *journey) change() {
	id := dynamo.NodeID(rapid.StringMatching("[a-h]").Draw(j.t, "node"))
	j.stores++
	changes := []Change{
		newcomer(id, j.stores), of(Leave, id), of(Remove, id), replace(id, "h", j.stores%2 == 0),
		{Kind: SetCapacity, Node: id, Capacity: 1 + int(j.stores)%4}, {Kind: SetZone, Node: id, Zone: string(id[0]%3 + 'x')},
	}
	if next, err := j.d.Stage(rapid.SampledFrom(changes).Draw(j.t, "change")); err == nil {
		j.step(next, "stage")
		j.staged = next.Version
	}
	if len(j.d.Staged) > 0 && rapid.Bool().Draw(j.t, "commit") {
		plan, err := j.d.Plan()
		if err != nil {
			if j.advanced < j.staged || !strings.Contains(err.Error(), "clear what is staged") {
				j.t.Fatalf("what could be staged cannot be planned: %v", err)
			}
			next, err := j.d.Clear()
			if err != nil {
				j.t.Fatalf("clear: %v", err)
			}
			j.step(next, "clear")
			return
		}
		if !plan.Queued && plan.Moves != plan.From.Moves(plan.To, ring.Focus) {
			j.t.Fatalf("%d moves", plan.Moves)
		}
		next, err := j.d.Commit(j.d.Version)
		if err != nil || !next.Equal(plan.Document) {
			j.t.Fatalf("commit: %v", err)
		}
		j.step(next, "commit")
	}
}

// accept gives up what is lost, because all replicas of a partition were removed. It reports whether
// something was.
func (j *journey) accept() bool {
	if len(j.d.Losses()) == 0 {
		return false
	}
	next, err := j.d.AcceptLoss(nil, j.d.Version)
	if err != nil {
		j.t.Fatal(err)
	}
	j.step(next, "accept")
	return true
}

// learn lets facts grow at random.
func (j *journey) learn() {
	for _, m := range j.d.Members {
		f := j.facts[m.ID]
		if f.Store != m.Store || f.Target != j.d.Target() {
			f = Facts{Store: m.Store, Target: j.d.Target(), Known: f.Known}
		}
		f.Known = max(f.Known, uint64(rapid.IntRange(0, int(j.d.Version)).Draw(j.t, "known")))
		f.Idle = rapid.Bool().Draw(j.t, "idle")
		for _, fill := range j.d.FillsOf(m.ID) {
			if at, has := slices.BinarySearch(f.Filled, fill.Partition); !has && rapid.Bool().Draw(j.t, "filled") {
				f.Filled = slices.Insert(slices.Clone(f.Filled), at, fill.Partition)
			}
		}
		j.facts[m.ID] = f
	}
}

// TestMovementEnds: whatever is changed meanwhile, every version on the way is valid,
// nothing is filled twice by one movement, and all ends where the claim wants it.
func TestMovementEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := founding()
		f.Partitions = 1 << rapid.IntRange(0, 4).Draw(t, "log q")
		d, _, err := Found(f)
		if err != nil {
			t.Fatal(err)
		}
		j := &journey{t: t, d: d, facts: map[dynamo.NodeID]Facts{}, fills: map[Fill]int{}, stores: 10}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				j.change()
				continue
			}
			j.learn()
			again, _ := j.d.Advance(j.facts)
			if next, changed := j.d.Advance(j.facts); changed {
				if !again.Equal(next) {
					t.Fatal("the same facts give two results")
				}
				j.step(next, "advance")
				j.advanced = next.Version
			} else if !next.Equal(j.d) {
				t.Fatal("an advance that changes nothing changed something")
			}
		}
		left := 0
		for ; left <= 10; left++ {
			next, changed := j.d.Advance(perfect(j.d))
			if !changed && !j.accept() {
				break
			}
			if changed {
				j.step(next, "last advance")
			}
		}
		if j.d.Next != nil || !j.d.Movement.equal(Movement{}) || left > 10 {
			t.Fatalf("after %d advances: %+v", left, j.d.Movement)
		}
		for _, m := range j.d.Members {
			if m.Status == Joining || m.Status == Leaving || m.Removed && m.Status != Gone {
				t.Fatalf("%s is %v in the end", m.ID, m.Status)
			}
		}
		if again, _, err := ring.Claim(j.d.Settled, j.d.Claimants(), f.Partitions, j.d.Depth); err != nil || again.Moves(j.d.Settled, ring.Focus) != 0 {
			t.Fatalf("the claim differs from the ring in the end: %v", err)
		}
	})
}

// TestJoinMoves: joins move what they must, each partition once, however many join in
// one commit.
func TestJoinMoves(t *testing.T) {
	for members := 3; members <= 12; members++ {
		for _, q := range []int{64, 128, 256} {
			for _, joins := range []int{1, 2, 5} {
				f := Founding{ClusterID: ClusterID{1}, ClusterName: "test", Partitions: q}
				for i := range members {
					f.Members = append(f.Members, newcomer(dynamo.NodeID(fmt.Sprintf("n%02d", i)), byte(i+1)).Member)
				}
				d := found(t, f)
				for i := range joins {
					d = staged(t, d, newcomer(dynamo.NodeID(fmt.Sprintf("x%02d", i)), byte(100+i)))
				}
				plan, err := d.Plan()
				if err != nil {
					t.Fatal(err)
				}
				if plan.Moves != plan.From.Moves(plan.To, ring.Focus) || plan.Moves*100 > plan.LeastMoves*105 || plan.LeastMoves == 0 {
					t.Errorf("%d of %d join, q=%d: %d moves, least %d", joins, members, q, plan.Moves, plan.LeastMoves)
				}
				for _, node := range plan.To.Nodes() {
					if strings.HasPrefix(string(node), "x") {
						continue
					}
					for _, p := range plan.To.PartitionsOf(node, ring.Focus) {
						if !plan.From.IsPrimary(p, ring.Focus, node) {
							t.Errorf("%d of %d join, q=%d: partition %d moves to %s, which was there before", joins, members, q, p, node)
						}
					}
				}
			}
		}
	}
}
