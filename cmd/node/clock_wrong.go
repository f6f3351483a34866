//go:build wrongclock

package main

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// wallClock is a clock for tests that is wrong by what the file says that
// DYNACTOR_WRONG_CLOCK names, for example -1h; without the file it is right. The
// file is read again every tenth of a second. Timeouts are not concerned, as with a
// real clock that is set.
var wallClock = (&wrongClock{file: os.Getenv("DYNACTOR_WRONG_CLOCK")}).now

// messageLife is what DYNACTOR_MESSAGE_LIFE says, so that tests need not wait for as long
// as the default one.
var messageLife = func() time.Duration {
	s := os.Getenv("DYNACTOR_MESSAGE_LIFE")
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}()

type wrongClock struct {
	file   string
	mu     sync.Mutex
	looked time.Time
	by     time.Duration
}

func (c *wrongClock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Sub(c.looked) > 100*time.Millisecond {
		c.looked, c.by = now, 0
		switch b, err := os.ReadFile(c.file); {
		case err == nil:
			if c.by, err = time.ParseDuration(strings.TrimSpace(string(b))); err != nil {
				panic(fmt.Sprintf("%s: %v", c.file, err))
			}
		case !os.IsNotExist(err):
			panic(err)
		}
	}
	return now.Add(c.by)
}
