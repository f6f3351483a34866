package client_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/dynactor/dynactor/bootstrap/clustertest"
	"github.com/dynactor/dynactor/client"
	"github.com/dynactor/dynactor/messages"
)

// TestTrace: a request tells what happened to it, also when it fails; the next one with the
// same timeline tells of itself alone.
func TestTrace(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	cl := connect(t, c)
	b, ctx := cl.Bucket("b"), patient(t)
	var tl client.Timeline
	if _, err := b.Put(ctx, "k", []byte("v"), client.W(3), client.Trace(&tl)); err != nil {
		t.Fatal(err)
	}
	asked, answered, ended := tl.Steps[0], tl.Steps[1], tl.Steps[2]
	if tl.Kind != "put" || len(tl.Steps) != 3 || asked.What != messages.StepAsked || answered.What != messages.StepAnswered || ended.What != messages.StepEnded ||
		asked.Node == "" || asked.Node != answered.Node || answered.Inner == nil || answered.Inner.Node != asked.Node || answered.At > ended.At {
		t.Errorf("%+v", tl)
	}
	if _, err := b.Get(ctx, "k", client.R(9), client.Trace(&tl)); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("with R = 9: %v", err)
	}
	if len(tl.Steps) != 3 || tl.Kind != "get" || tl.Steps[1].What != messages.StepFailed || tl.Steps[1].Text != "invalid" || tl.Steps[1].Inner != nil {
		t.Errorf("refused before it was begun: %+v", tl)
	}
	if _, err := b.Get(ctx, strings.Repeat("k", 2000), client.Trace(&tl)); !errors.Is(err, client.ErrInvalid) {
		t.Errorf("a long key: %v", err)
	}
	all, err := cl.Cluster().SlowRequests(ctx, asked.Node, 1)
	if err != nil || len(all) != 1 || all[0].Key != `"k"` || all[0].Took <= 0 || len(all[0].Steps) < 9 {
		t.Errorf("%+v, %v", all, err)
	}
	if _, err := cl.Cluster().SlowRequests(ctx, "nobody", 0); err == nil {
		t.Error("a node that is not there has answered")
	}
}
