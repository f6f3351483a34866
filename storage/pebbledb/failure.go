package pebbledb

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/dynactor/dynactor/storage"
)

// failure is the engine's one-way switch to ErrFailed. Once it is thrown no
// commit is reported as done any more and nothing more is written to the disk,
// which so stays as a crash at that moment would have left it.
type failure struct {
	log     *slog.Logger
	onFatal func(error)

	once   sync.Once
	cause  atomic.Pointer[error]
	thrown chan struct{}
	// serving is set once Open has succeeded. Before, a failure is Open's
	// error and nobody else is told.
	serving atomic.Bool
}

func newFailure(log *slog.Logger, onFatal func(error)) *failure {
	return &failure{log: log, onFatal: onFatal, thrown: make(chan struct{})}
}

// fail throws the switch; only the first cause counts. It never blocks, so it
// may be called under any lock of Pebble's.
func (f *failure) fail(cause error) {
	f.once.Do(func() {
		err := fmt.Errorf("%w: %w", storage.ErrFailed, cause)
		f.cause.Store(&err)
		close(f.thrown)
		if !f.serving.Load() {
			return
		}
		f.log.Error("storage failed for good; the process has to end", "err", cause)
		if f.onFatal != nil {
			go f.onFatal(err)
		}
	})
}

// err returns nil or the cause, which is an ErrFailed.
func (f *failure) err() error {
	if p := f.cause.Load(); p != nil {
		return *p
	}
	return nil
}

// logger hands Pebble's messages on. Its Fatalf returns, unlike the default one
// that ends the process at once: the node is to do that in good order.
type logger struct{ f *failure }

// Infof implements pebble.Logger.
func (l logger) Infof(format string, args ...any) {
	l.f.log.Debug("pebble: " + fmt.Sprintf(format, args...))
}

// Errorf implements pebble.Logger.
func (l logger) Errorf(format string, args ...any) {
	l.f.log.Error("pebble: " + fmt.Sprintf(format, args...))
}

// Fatalf implements pebble.Logger.
func (l logger) Fatalf(format string, args ...any) {
	l.f.fail(fmt.Errorf("pebble: "+format, args...))
}
