package link

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/dynactor/dynactor/messages"
)

func helloOf(id string, start uint64) Hello {
	return Hello{
		MinVersion: minVersion, MaxVersion: maxVersion, Role: messages.RoleNode, Start: start,
		Cluster: "shop", ClusterID: []byte{1}, NodeID: id, Process: start,
	}
}

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(own, their *Hello)
		want   RefusalCode // 0 is yes
	}{
		{"equals", func(_, _ *Hello) {}, 0},
		{"probe", func(_, their *Hello) { their.Lane = laneProbe }, 0},
		{"client", func(_, their *Hello) { their.Role, their.ClusterID = messages.RoleClient, nil }, 0},
		{"not founded", func(_, their *Hello) { their.ClusterID = nil }, 0},
		{"newer version that speaks ours", func(_, their *Hello) { their.MaxVersion = 9 }, 0},
		{"newer version", func(_, their *Hello) { their.MinVersion, their.MaxVersion = 8, 9 }, RefusedVersion},
		{"older version", func(own, _ *Hello) { own.MinVersion, own.MaxVersion = 8, 9 }, RefusedVersion},
		{"other cluster name", func(_, their *Hello) { their.Cluster = "bank" }, RefusedCluster},
		{"other cluster id", func(_, their *Hello) { their.ClusterID = []byte{2} }, RefusedCluster},
		{"client of another cluster id", func(_, their *Hello) { their.Role, their.ClusterID = messages.RoleClient, []byte{2} }, RefusedCluster},
		{"itself", func(own, their *Hello) { *their = *own }, RefusedSelf},
		{"same id", func(own, their *Hello) { their.NodeID = own.NodeID }, RefusedDuplicate},
		{"meant another", func(_, their *Hello) { their.Target = "n9" }, RefusedTarget},
		{"meant us", func(own, their *Hello) { their.Target = own.NodeID }, 0},
		{"bad id", func(_, their *Hello) { their.NodeID = "a/b" }, RefusedHello},
		{"no id", func(_, their *Hello) { their.NodeID = "" }, RefusedHello},
		{"bad lane", func(_, their *Hello) { their.Lane = 2 }, RefusedHello},
		{"bad role", func(_, their *Hello) { their.Role = 7 }, RefusedHello},
		{"two clients", func(own, their *Hello) { own.Role, their.Role = messages.RoleClient, messages.RoleClient }, RefusedRole},
	} {
		own, their := helloOf("n1", 1), helloOf("n2", 2)
		c.change(&own, &their)
		r := judge(&own, &their)
		switch {
		case r == nil && c.want != 0:
			t.Errorf("%s: accepted, want %v", c.name, c.want)
		case r != nil && (r.Code != c.want || r.Text == "" || !r.Ours || r.Peer != their.NodeID):
			t.Errorf("%s: %+v, want %v", c.name, r, c.want)
		}
	}
}

func TestFoundingOnly(t *testing.T) {
	a, b := helloOf("n1", 1), helloOf("n2", 2)
	if founding(&a, &b) {
		t.Error("two founded nodes are limited")
	}
	b.ClusterID = nil
	if !founding(&a, &b) || !founding(&b, &a) {
		t.Error("a node without a cluster is not limited")
	}
	b.Role = messages.RoleClient
	if founding(&a, &b) {
		t.Error("a client that does not know the id is limited")
	}
}

func drawHello(t *rapid.T) Hello {
	text := func(limit int, label string) string {
		return string(rapid.SliceOfN(rapid.Byte(), 0, limit).Draw(t, label))
	}
	return Hello{
		MinVersion: rapid.Uint16().Draw(t, "min"), MaxVersion: rapid.Uint16().Draw(t, "max"),
		Role: messages.Role(rapid.Byte().Draw(t, "role")), Lane: rapid.Byte().Draw(t, "lane"),
		Start: rapid.Uint64().Draw(t, "start"), Sequence: rapid.Uint64().Draw(t, "sequence"),
		Cluster: text(MaxText, "cluster"), ClusterID: []byte(text(MaxClusterID, "cluster id")),
		NodeID: text(MaxNodeID, "id"), Target: text(MaxNodeID, "target"), Advertise: text(MaxText, "advertise"), Store: []byte(text(MaxClusterID, "store")),
		Process: rapid.Uint64().Draw(t, "process"), Stamp: rapid.Uint64().Draw(t, "stamp"), Echo: rapid.Uint64().Draw(t, "echo"),
	}
}

func TestHelloRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHello(t)
		frame := appendHello(nil, kindHello, &h)
		kind, body, _, err := readFrame(reader(frame), maxHelloFrame, nil)
		if err != nil || kind != kindHello {
			t.Fatalf("kind %d: %v (the longest hello must fit)", kind, err)
		}
		// A newer version may append fields.
		got, err := parseHello(append(bytes.Clone(body), "more"...))
		if err != nil {
			t.Fatal(err)
		}
		// Version 1 said no stamps.
		if old, err := parseHello(body[:len(body)-16]); err != nil || old.Process != h.Process || old.Stamp != 0 {
			t.Fatalf("without stamps: %+v, %v", old, err)
		}
		if len(h.ClusterID) == 0 {
			h.ClusterID, got.ClusterID = nil, nil
		}
		if !reflect.DeepEqual(h, got) {
			t.Fatalf("%+v became %+v", h, got)
		}
	})
}

func TestRefusalRoundTrip(t *testing.T) {
	for _, text := range []string{"", "why", strings.Repeat("x", 300)} {
		frame := appendRefusal(nil, &Refusal{Code: RefusedCluster, Text: text, Document: 7})
		kind, body, _, err := readFrame(reader(frame), maxHelloFrame, nil)
		if err != nil || kind != kindRefusal {
			t.Fatal(kind, err)
		}
		r, err := parseRefusal(body)
		if err != nil || r.Code != RefusedCluster || r.Text != text[:min(len(text), MaxText)] || r.Document != 7 || r.Ours {
			t.Errorf("%+v, %v", r, err)
		}
		// As nodes said it before.
		if r, err = parseRefusal(body[:len(body)-8]); err != nil || r.Document != 0 || r.Text != text[:min(len(text), MaxText)] {
			t.Errorf("without a version: %+v, %v", r, err)
		}
	}
}

func FuzzHello(f *testing.F) {
	h := helloOf("n1", 3)
	f.Add(appendHello(nil, kindHello, &h)[headerLen+1:])
	f.Add(appendRefusal(nil, &Refusal{Code: 1, Text: "no"})[headerLen+1:])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHello(b); err == nil {
			own := helloOf("n1", 1)
			judge(&own, &h)
			again, err := parseHello(appendHello(nil, kindHello, &h)[headerLen+1:])
			if err != nil || again.NodeID != h.NodeID || !bytes.Equal(again.ClusterID, h.ClusterID) {
				t.Fatalf("what was decoded does not encode: %v", err)
			}
		}
		if r, err := parseRefusal(b); err == nil && len(r.Text) > MaxText {
			t.Fatalf("a refusal of %d bytes", len(r.Text))
		}
	})
}
