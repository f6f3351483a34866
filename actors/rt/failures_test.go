package rt

import (
	"bytes"
	"log/slog"
	"testing"
)

// TestFailuresHandler: errors are noted as they are logged; whatever is logged goes where
// it went before.
func TestFailuresHandler(t *testing.T) {
	var f Failures
	var plain, both bytes.Buffer
	o := &slog.HandlerOptions{Level: slog.LevelWarn, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	for _, log := range []*slog.Logger{slog.New(slog.NewTextHandler(&plain, o)), slog.New(f.Handler(slog.NewTextHandler(&both, o)))} {
		log.Info("a detail")
		log.Warn("odd", "x", 1)
		log.With("partition", 3).WithGroup("disk").Error("it broke", "why", "full\x1b[2J", "time", 7)
	}
	if plain.String() != both.String() || plain.Len() == 0 {
		t.Errorf("logged\n%s\nwant\n%s", both.String(), plain.String())
	}
	all, _ := f.List(0)
	if want := `msg="it broke" partition=3 disk.why="full\x1b[2J" disk.time=7`; len(all) != 1 || all[0].Text != want || all[0].Actor != "" {
		t.Errorf("noted %+v, want %s", all, want)
	}
	quiet := slog.New(f.Handler(slog.DiscardHandler))
	if quiet.Error("again"); len(f.all) != 2 {
		t.Error("what nobody logs is not noted")
	}
}
