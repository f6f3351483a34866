package rt

import "time"

// decades lies between the moment that Clock counts from and the process's start, so
// that what was long before the start still has a time, and 0 can mean none.
const decades = 1 << 40 * time.Millisecond

// started is what elapsed said when the process started.
var started = elapsed()

// Clock is the time since a moment that is fixed for this process, and another one for
// each process. It never goes back, nobody sets it, and it runs on while the process is
// stopped. While the machine is suspended it runs on Linux only; a machine with another
// system must not be suspended while it is a member of a cluster.
func Clock() time.Duration { return decades + elapsed() - started }
