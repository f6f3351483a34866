//go:build !wrongclock

package main

import "time"

// wallClock is the machine's.
var wallClock = time.Now

// messageLife is the default one.
const messageLife time.Duration = 0
