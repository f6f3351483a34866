package member

import (
	"testing"

	"github.com/dynactor/dynactor/dynamo"
)

// TestRowsOfStores: rows count for a member only with the store that the document
// knows; a lost one has counted more starts than that which takes its place.
func TestRowsOfStores(t *testing.T) {
	d := found(t, founding())
	node := d.Members[0].ID
	old := Row{Node: node, Start: 9, Counter: 9, Facts: Facts{Store: d.Members[0].Store}}
	rows := Rows{}
	rows.Merge(old)
	taken, err := d.TakeOver(node, old.Store, StoreID{99}, 1, "x:1")
	if err != nil {
		t.Fatal(err)
	}
	again := Row{Node: node, Start: 1, Counter: 1, Facts: Facts{Store: StoreID{99}}}
	for name, tc := range map[string]struct {
		row  Row
		doc  Document
		want bool
	}{
		"the member's":            {old, d, true},
		"the new one's, too soon": {again, d, false},
		"the lost one's":          {old, taken, false},
		"the new one's":           {again, taken, true},
		"a stranger's":            {Row{Node: dynamo.NodeID("z"), Facts: old.Facts}, d, false},
	} {
		if got := tc.row.Of(&tc.doc); got != tc.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	rows.Retain(&d)
	if len(rows) != 1 {
		t.Fatalf("rows %v", rows)
	}
	rows.Retain(&taken)
	if !rows.Merge(again) {
		t.Error("the row of the lost store stands before that of the new one")
	}
}
