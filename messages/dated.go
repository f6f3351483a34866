package messages

// Dated is a message that may have records. It tells when, at the earliest, the first
// of them was read from a store (a write that a vnode has made: when it made it), in
// milliseconds on the clock of the process where the message is; 0 is no date. A message
// with records needs one: whoever merges them refuses what was read too long ago
// (dynamo/reap).
type Dated interface {
	GetReadMs() int64
	SetReadMs(ms int64)
}

// SetReadMs dates the record; the link does so on receipt.
func (x *ReadReply) SetReadMs(ms int64) { x.ReadMs = ms }

// SetReadMs dates the record; the link does so on receipt.
func (x *ReplicateRequest) SetReadMs(ms int64) { x.ReadMs = ms }

// SetReadMs dates the records; the link does so on receipt.
func (x *HandoffRequest) SetReadMs(ms int64) { x.ReadMs = ms }

// SetReadMs dates the records; the link does so on receipt.
func (x *FillReply) SetReadMs(ms int64) { x.ReadMs = ms }

// SetReadMs dates the records; the link does so on receipt.
func (x *ExchangeRequest) SetReadMs(ms int64) { x.ReadMs = ms }

// SetReadMs dates the records; the link does so on receipt.
func (x *ExchangeReply) SetReadMs(ms int64) { x.ReadMs = ms }
