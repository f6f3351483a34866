// Package messages is what nodes and clients say to each other: protobuf types,
// their numbers on the wire, who may send them to whom, and the conversion to
// and from the types of dynamo, with validation and limits.
//
// Invariants:
//
//   - The wire may only grow: message numbers, field numbers and codes are
//     never reused or given another meaning. A mixed-version cluster is normal.
//   - Wire types stop here: behind convert.go nobody sees a nil field, an
//     unchecked length or an out-of-range number.
//   - A message is never changed after it was sent.
package messages
