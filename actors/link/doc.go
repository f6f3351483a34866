// Package link carries messages between the actors of different nodes, and
// between clients and nodes. It is an address resolver under protoactor: the
// PID of an actor elsewhere has the node's id as its address, and a message
// sent to it goes out on this node's link to that node. Nothing of the
// library's own remote package is used.
//
// # What a sender may rely on
//
//   - At most once, in order per sender, target and connection. Nothing is
//     sent twice; what was written to a connection that then broke may or may
//     not have arrived, and the link does not say so: senders have deadlines.
//   - A message that certainly was not sent comes back at once as
//     *[Undelivered] to its sender: the queue is full, the peer is not
//     connected, the time is over, the message is too large or has no number.
//     Nothing ever blocks the sender and nothing waits for a connection.
//   - System messages (stop, poison, watch) do not cross, and have no form on
//     the wire.
//
// # Who is who
//
// One supervised actor per peer ("links/<node id>") owns that peer's state, an
// explicit machine per connection (machine.go). A peer has two connections,
// its lanes: requests and bulk, so that a transfer never delays a get. Data
// does not pass the actor: a sender encodes into the lane's bounded queue on
// its own goroutine, the writer takes all that is queued and writes it as one
// frame, the reader decodes and hands the message to the target's mailbox.
//
// Clients dial and never listen; answers come back on their connections.
//
// # Both ends dialling at once
//
// Two nodes that know each other both dial. Each hello and each welcome carries
// its sender's start number and a sequence number that grows with each one it
// sends on that lane, which orders everything an end has ever said about the
// lane. The rules, the same at both ends:
//
//   - Nothing up and our own hello not sent: the caller is accepted and our
//     own attempt dropped.
//   - Our own hello sent and not answered: the attempt of the node with the
//     smaller id goes on, so the caller is accepted if its id is smaller and
//     otherwise refused as superseded.
//   - Up: the caller is accepted, and replaces the connection, if its hello is
//     newer than what it last said on that connection. It would not call if it
//     had a connection, so ours is dead and we have not noticed. An older
//     hello is the leftover of a race that is decided already. A caller that is
//     another process of that name is refused while the connection lives; only
//     a process that is in no cluster gives way to one that is.
//
// So two simultaneous attempts end as one connection without a second round,
// and a leftover attempt cannot tear down the connection that won.
//
// # Dates
//
// A record in a message is dated by the clock of the process where the message is. The
// link translates the date, always to a moment that is not later than the one meant
// (dates.go), by the clock that the peer adds to each answer of a heartbeat. Either end
// knows it before the first message: a welcome answers the stamp in the hello, and the
// dialler's first frame the one in the welcome.
//
// # Frames
//
// Four bytes length of the body, four bytes CRC32C of the body, body: one byte
// kind, then envelopes, a heartbeat, or a hello (frame.go, hello.go). The
// length is checked before memory is taken, and memory for a long body is
// taken as it arrives. A frame that is damaged breaks the connection; a message
// that is unknown, forbidden or undecodable is counted, answered with a
// Failure if it is a request, and leaves the connection alone.
package link
