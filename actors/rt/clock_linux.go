package rt

import (
	"time"

	"golang.org/x/sys/unix"
)

// elapsed is the time since the machine was booted. The runtime's own clock, that of
// time.Since, stands still while the machine is suspended.
func elapsed() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		// Kernels have this clock since 2.6.39. Another one in its place would give some
		// dates a wrong age.
		panic("clock_gettime(CLOCK_BOOTTIME): " + err.Error())
	}
	return time.Duration(t.Nano())
}
