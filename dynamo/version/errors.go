package version

import "errors"

// Errors of decoding.
var (
	// ErrCorrupt: the bytes are not a record or a context that this package
	// wrote: cut, altered, or not in canonical form.
	ErrCorrupt = errors.New("version: corrupt encoding")
	// ErrFormat: the bytes have a format version that this program does not
	// know; a newer program wrote them.
	ErrFormat = errors.New("version: unknown format")
	// ErrContext: the context was damaged, or it belongs to another key.
	ErrContext = errors.New("version: context is damaged or of another key")
	// ErrContextSize: the context is longer than dynamo.MaxContext.
	ErrContextSize = errors.New("version: context is too long")
)
