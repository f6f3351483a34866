package main

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// progress counts records done and failed: a bar on a terminal, a line every
// few seconds elsewhere.
type progress struct {
	done, failed atomic.Uint64
	bar          *mpb.Bar
	bars         *mpb.Progress
	stop         chan struct{}
	wg           sync.WaitGroup
	started      time.Time
}

// progressLine is how often a line is printed where there is no terminal.
const progressLine = 5 * time.Second

// newProgress begins; total is in bytes of input, 0 if not known.
func newProgress(w io.Writer, what string, total int64) *progress {
	p := &progress{stop: make(chan struct{}), started: time.Now()}
	if isTerminal(w) {
		counts := decor.Any(func(decor.Statistics) string { return p.counts() })
		p.bars = mpb.New(mpb.WithOutput(w), mpb.WithWidth(40))
		p.bar = p.bars.AddBar(total, mpb.PrependDecorators(decor.Name(what+" ")), mpb.AppendDecorators(decor.Percentage(), decor.Name("  "), counts))
		return p
	}
	p.wg.Go(func() {
		tick := time.NewTicker(progressLine)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintln(w, what, p.counts())
			case <-p.stop:
				return
			}
		}
	})
	return p
}

// advance moves the bar to so many bytes of input.
func (p *progress) advance(bytes int64) {
	if p.bar != nil {
		p.bar.SetCurrent(bytes)
	}
}

// grow changes how much there is.
func (p *progress) grow(total int64) {
	if p.bar != nil {
		p.bar.SetTotal(total, false)
	}
}

func (p *progress) counts() string {
	done := p.done.Load()
	rate := float64(done) / max(time.Since(p.started).Seconds(), 0.001)
	return fmt.Sprintf("%d done, %d failed, %.0f/s", done, p.failed.Load(), rate)
}

// end takes the bar away.
func (p *progress) end() {
	close(p.stop)
	p.wg.Wait()
	if p.bars != nil {
		p.bar.SetTotal(-1, true)
		p.bars.Wait()
	}
}
