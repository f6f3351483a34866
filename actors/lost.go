package actors

import (
	"fmt"
	"log/slog"
	"slices"

	"github.com/dynactor/dynactor/dynamo"
	"github.com/dynactor/dynactor/dynamo/member"
	"github.com/dynactor/dynactor/messages"
)

// acceptCommand is what an operator gives to go on without lost data.
const acceptCommand = "node cluster accept-loss"

// Lost is what health says of partitions of which no replica is left that has the data. They take
// writes; what is not found there is not answered until an operator accepts the loss.
type Lost struct {
	Partitions []dynamo.Partition `json:"partitions"`
	// Do says what to do.
	Do string `json:"do"`
}

// lost is nil when nothing is.
func lost(doc *member.Document) *Lost {
	if doc == nil {
		return nil
	}
	losses := doc.Losses()
	if len(losses) == 0 {
		return nil
	}
	out := &Lost{Do: "no replica is left that has their data, as its disks were replaced or its members removed; to go on without it: " + acceptCommand}
	for _, l := range losses {
		out.Partitions = append(out.Partitions, l.Partition)
	}
	return out
}

// tellLost says once what a document says is lost and the one before did not.
func (m *membershipActor) tellLost(before, doc *member.Document) {
	known := map[dynamo.Partition][]int{}
	if before != nil {
		for _, l := range before.Losses() {
			known[l.Partition] = l.N
		}
	}
	for _, l := range doc.Losses() {
		if !slices.Equal(known[l.Partition], l.N) {
			m.s.Log.Error("no replica is left that has the data: it waits for an operator", slog.Uint64("partition", uint64(l.Partition)),
				slog.Any("n", l.N), slog.Any("replicas", l.Waiting), slog.String("to accept the loss", acceptCommand))
		}
	}
}

// accepting is the change that accepts losses (member.Document.AcceptLoss).
func (m *membershipActor) accepting(r *messages.ClusterRequest) (*change, error) {
	partitions, err := messages.ToPartitions(r.GetPartitions())
	what := fmt.Sprintf("accept the loss of partitions %v", partitions)
	if len(partitions) == 0 {
		what = "accept the loss of all partitions that are lost"
	}
	v := r.GetVersion()
	return &change{what: what, make: func(d member.Document) (member.Document, error) { return d.AcceptLoss(partitions, v) }}, err
}

// whyLost adds to what keeps a read from being answered that its partition's data is lost.
func (a *getActor) whyLost(f *messages.Failure) *messages.Failure {
	doc, p := a.s.Document(), a.plan.partition
	if doc != nil && doc.LostFor(p, a.plan.params.N) {
		f.Text += fmt.Sprintf("; no replica is left that has the data of partition %d: %s", p, acceptCommand)
	}
	return f
}
