//go:build !linux

package rt

import "time"

var processStart = time.Now()

// elapsed is the time since the process started, by the runtime's own clock.
func elapsed() time.Duration { return time.Since(processStart) }
