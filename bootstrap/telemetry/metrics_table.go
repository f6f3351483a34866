package telemetry

import (
	"runtime"

	"github.com/dynactor/dynactor/actors/link"
	"github.com/dynactor/dynactor/messages"
)

// The types of metrics.
const (
	counter   = "counter"
	gauge     = "gauge"
	histogram = "histogram"
)

// Description is one metric as operators know it.
type Description struct {
	// Name is what is scraped, Type counter, gauge or histogram.
	Name, Type string
	Labels     []string
	Help       string
}

// Descriptions are the metrics of this program, in the order of its documentation; those of the Go runtime and
// the process are scraped besides.
func Descriptions() []Description {
	out := append([]Description{}, distributions...)
	for _, in := range instruments {
		out = append(out, in.Description)
	}
	return out
}

// distributions are measured on the way of requests; histograms.Produce knows their order.
var distributions = []Description{
	{"dynactor_request_duration_seconds", histogram, []string{"operation", "bucket"}, "What requests that were let in took on their coordinator, from arrival to answer."},
	{"dynactor_read_siblings", histogram, []string{"bucket"}, "Versions that reads found which found any: 1 is no conflict."},
	{"dynactor_request_replicas", histogram, []string{"operation"}, "Replicas that had answered when the client was."},
}

// instrument is one metric that is read when somebody scrapes.
type instrument struct {
	Description
	read func(l *look, observe func(value float64, labels ...string))
}

// one is an instrument without labels.
func one(name, kind, help string, value func(*look) float64) instrument {
	return instrument{Description{name, kind, nil, help}, func(l *look, observe func(float64, ...string)) { observe(value(l)) }}
}

// many is one with labels.
func many(name, kind, help string, labels []string, read func(l *look, observe func(float64, ...string))) instrument {
	return instrument{Description{name, kind, labels, help}, read}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// instruments are all that is read, in the order of the documentation.
var instruments = join(nodeInstruments, requestInstruments, dataInstruments, storageInstruments, actorInstruments, peerInstruments)

func join(all ...[]instrument) (out []instrument) {
	for _, some := range all {
		out = append(out, some...)
	}
	return out
}

var nodeInstruments = []instrument{
	many("dynactor_build_info", gauge, "Always 1: which program runs.", []string{"version", "go_version"}, func(l *look, observe func(float64, ...string)) {
		observe(1, l.Version, runtime.Version())
	}),
	many("dynactor_node_info", gauge, "Always 1: which node this is.", []string{"node", "cluster", "zone"}, func(l *look, observe func(float64, ...string)) {
		observe(1, l.Node, l.Cluster, l.Zone)
	}),
	one("dynactor_ready", gauge, "1 while the node serves all its partitions, as /readyz says.", func(l *look) float64 {
		return truth(l.health.Ready && l.figures.Storage.Failed == nil)
	}),
	one("dynactor_document_version", gauge, "Version of the cluster document in force, 0 before there is one.", func(l *look) float64 { return float64(l.figures.Version) }),
	one("dynactor_partitions", gauge, "Partitions that this node has a vnode for.", func(l *look) float64 { return float64(l.health.Partitions) }),
	one("dynactor_partitions_serving", gauge, "Partitions that this node reads and writes.", func(l *look) float64 { return float64(l.health.Serving) }),
	one("dynactor_partitions_damaged", gauge, "Partitions of which something cannot be read here.", func(l *look) float64 { return float64(l.health.Damage.Partitions) }),
	one("dynactor_partitions_maybe_lost", gauge, "Partitions given up here, since the start, while something of them may have been nowhere else.", func(l *look) float64 {
		return float64(l.health.Damage.MaybeLost)
	}),
	one("dynactor_partitions_lost", gauge, "Partitions of the cluster of which no replica is left that has the data.", func(l *look) float64 { return float64(l.figures.LostPartitions) }),
	one("dynactor_partitions_filling", gauge, "Partitions that this node still has to take from others.", func(l *look) float64 { return float64(l.figures.FillsLeft) }),
	one("dynactor_partitions_misplaced", gauge, "Partitions of which objects lie here that belong elsewhere.", func(l *look) float64 { return float64(l.figures.MisplacedPartitions) }),
	many("dynactor_log_events_total", counter, "Events logged, by level; with those that were only counted.", []string{"level"}, func(l *look, observe func(float64, ...string)) {
		for level, n := range l.logged {
			observe(float64(n), level)
		}
	}),
	one("dynactor_log_events_suppressed_total", counter, "Events of the log that were only counted, because the same came again and again.", func(l *look) float64 { return float64(l.suppressed) }),
}

var requestInstruments = []instrument{
	many("dynactor_requests_total", counter, "Requests of clients answered here, also those that were not let in. A forward is a write passed on to a node that may coordinate it, which counts it as a put or delete.",
		[]string{"operation", "bucket", "outcome"}, func(l *look, observe func(float64, ...string)) {
			for _, r := range l.requests {
				for outcome, n := range r.Outcomes {
					observe(float64(n), r.Operation.String(), r.Bucket, outcome)
				}
			}
		}),
	one("dynactor_requests_in_flight", gauge, "Requests that owe their client an answer.", func(l *look) float64 { return float64(l.figures.InFlight) }),
	one("dynactor_shed_total", counter, "Messages refused because something was full: mailboxes, and requests over max-requests.", func(l *look) float64 { return float64(l.Counters.Shed.Load()) }),
	one("dynactor_expired_total", counter, "Messages dropped because their time was over before their turn came.", func(l *look) float64 { return float64(l.Counters.Expired.Load()) }),
	many("dynactor_read_repairs_total", counter, "Replicas that a read found behind and sent the result: outdated ones, and those that were missing the key.", []string{"reason"},
		func(l *look, observe func(float64, ...string)) {
			missing := l.Counters.RepairsMissing.Load() // before the others, which it is part of
			observe(float64(l.Counters.Repairs.Load()-missing), "outdated")
			observe(float64(missing), "missing")
		}),
	one("dynactor_clock_entries_truncated_total", counter, "Entries dropped from vector clocks.", func(l *look) float64 { return float64(l.Counters.Truncated.Load()) }),
	one("dynactor_epochs_begun_total", counter, "Writes that began an epoch.", func(l *look) float64 { return float64(l.Counters.NewEpochs.Load()) }),
	one("dynactor_writes_repeated_total", counter, "Retries of writes that were answered without writing again.", func(l *look) float64 { return float64(l.Counters.Repeated.Load()) }),
}

var dataInstruments = []instrument{
	one("dynactor_hints", gauge, "Records kept for other nodes.", func(l *look) float64 { return float64(l.health.Hints.Records) }),
	one("dynactor_hints_bytes", gauge, "Size of the records kept for other nodes.", func(l *look) float64 { return float64(max(0, l.health.Hints.Bytes)) }),
	one("dynactor_hints_limit_bytes", gauge, "What is kept for other nodes at most.", func(l *look) float64 { return float64(l.figures.HintLimit) }),
	one("dynactor_hint_slots", gauge, "Pairs of node and partition that records are kept for.", func(l *look) float64 { return float64(l.figures.HintSlots) }),
	one("dynactor_hints_kept_total", counter, "Records taken to keep for others.", func(l *look) float64 { return float64(l.Counters.Hints.Load()) }),
	one("dynactor_hints_refused_total", counter, "Records not kept for others because so much was kept already.", func(l *look) float64 { return float64(l.Counters.HintsRefused.Load()) }),
	one("dynactor_hints_delivered_total", counter, "Records kept for others that were handed over.", func(l *look) float64 { return float64(l.Counters.HintsDelivered.Load()) }),
	many("dynactor_transfers_total", counter, "Transfers that ended: handovers of hints and misplaced objects, and fills.", []string{"kind", "outcome"}, func(l *look, observe func(float64, ...string)) {
		observe(float64(l.Counters.Transfers.Load()), "handover", "complete")
		observe(float64(l.Counters.TransfersFailed.Load()), "handover", "incomplete")
		observe(float64(l.Counters.Fills.Load()), "fill", "complete")
		observe(float64(l.Counters.FillsFailed.Load()), "fill", "incomplete")
	}),
	many("dynactor_transfer_bytes_total", counter, "Records that transfers have moved: handed over, or taken by fills.", []string{"kind"}, func(l *look, observe func(float64, ...string)) {
		observe(float64(l.Counters.TransferBytes.Load()), "handover")
		observe(float64(l.Counters.FillBytes.Load()), "fill")
	}),
	one("dynactor_records_moved_total", counter, "Misplaced objects that were handed over to their replicas.", func(l *look) float64 { return float64(l.Counters.Moved.Load()) }),
	one("dynactor_records_filled_total", counter, "Objects taken from other replicas to fill partitions.", func(l *look) float64 { return float64(l.Counters.Filled.Load()) }),
	many("dynactor_exchanges_total", counter, "Comparisons with other replicas that this node began and that ended.", []string{"outcome"}, func(l *look, observe func(float64, ...string)) {
		equal := l.Counters.ExchangesEqual.Load() // before the others, which it is part of
		observe(float64(equal), "equal")
		observe(float64(l.Counters.Exchanges.Load()-equal), "different")
		observe(float64(l.Counters.ExchangesFailed.Load()), "failed")
	}),
	one("dynactor_exchange_bytes_total", counter, "What the comparisons that this node began have sent and got.", func(l *look) float64 { return float64(l.Counters.ExchangeBytes.Load()) }),
	one("dynactor_exchange_pairs", gauge, "Pairs of replicas that this node compares.", func(l *look) float64 { return float64(l.figures.Pairs) }),
	one("dynactor_exchange_unverified_seconds", gauge, "For how long the pair that waits longest was not compared to its end.", func(l *look) float64 { return l.figures.Unverified.Seconds() }),
	one("dynactor_exchange_interval_seconds", gauge, "How often each pair should be compared, at least; 0: only when an operator says so.", func(l *look) float64 { return l.figures.Interval.Seconds() }),
	one("dynactor_records_mended_total", counter, "Records that comparisons have changed here.", func(l *look) float64 { return float64(l.Counters.Mended.Load()) }),
	many("dynactor_reaps_total", counter, "Reapings that this node began and that ended.", []string{"outcome"}, func(l *look, observe func(float64, ...string)) {
		observe(float64(l.Counters.Reaps.Load()), "complete")
		observe(float64(l.Counters.ReapsPutOff.Load()), "put_off")
	}),
	one("dynactor_records_reaped_total", counter, "Tombstones and expired records dropped from this node's store.", func(l *look) float64 { return float64(l.Counters.Reaped.Load()) }),
	one("dynactor_records_reapable", gauge, "Tombstones and expired records that the last looks have found, where this node begins to reap.", func(l *look) float64 { return float64(l.figures.Reapable) }),
	one("dynactor_messages_too_old_total", counter, "Messages refused because their records were read from a store too long ago.", func(l *look) float64 { return float64(l.Counters.TooOld.Load()) }),
	one("dynactor_tree_ranges_read_total", counter, "Ranges of hash trees that were read from the store.", func(l *look) float64 { return float64(l.Counters.TreeRanges.Load()) }),
	one("dynactor_tree_entries_read_total", counter, "Objects that were read for hash trees.", func(l *look) float64 { return float64(l.Counters.TreeEntries.Load()) }),
	one("dynactor_tree_leaves_wrong_total", counter, "Leaves of hash trees that were not what the store held, though nothing was known against them.", func(l *look) float64 { return float64(l.Counters.TreeWrong.Load()) }),
	one("dynactor_values_corrupt_total", counter, "Stored values that failed their checksum.", func(l *look) float64 { return float64(l.Counters.Corrupt.Load()) }),
	one("dynactor_replicas_lost_total", counter, "Replicas of this node that were given up because something of them could not be read.", func(l *look) float64 { return float64(l.Counters.Lost.Load()) }),
	one("dynactor_background_share_ratio", gauge, "Part of the time that transfers, fills, exchanges, reapings and hash trees may take.", func(l *look) float64 { return l.figures.Admission.Share }),
	one("dynactor_background_floor_ratio", gauge, "The least that this share falls to.", func(l *look) float64 { return l.figures.Admission.Floor }),
	one("dynactor_background_used_ratio", gauge, "Part of the time that they took.", func(l *look) float64 { return l.figures.Admission.Used }),
	many("dynactor_background_working", gauge, "Who has a slice of time, by kind of actor.", []string{"kind"}, func(l *look, observe func(float64, ...string)) {
		for kind, w := range l.figures.Admission.Kinds {
			observe(float64(w.Working), kind)
		}
	}),
	many("dynactor_background_waiting", gauge, "Who waits for a slice of time, by kind of actor.", []string{"kind"}, func(l *look, observe func(float64, ...string)) {
		for kind, w := range l.figures.Admission.Kinds {
			observe(float64(w.Waiting), kind)
		}
	}),
	many("dynactor_background_seconds_total", counter, "What slices of time took, by kind of actor.", []string{"kind"}, func(l *look, observe func(float64, ...string)) {
		for kind, w := range l.figures.Admission.Kinds {
			observe(w.Took.Seconds(), kind)
		}
	}),
}

var peerInstruments = []instrument{
	perPeer("dynactor_peer_reachable", gauge, "1 while this node asks the member: its failure detector thinks that it answers.", func(p peer) float64 { return truth(p.Reachable) }),
	perPeer("dynactor_peer_slow", gauge, "1 while the member is asked after others because it is slow.", func(p peer) float64 { return truth(p.Slow) }),
	perPeer("dynactor_peer_connected", gauge, "1 while there is a connection for requests.", func(p peer) float64 { return truth(p.link.Up()) }),
	perPeer("dynactor_peer_round_trip_seconds", gauge, "Smoothed round trip of heartbeats, 0 if unknown.", func(p peer) float64 { return p.link.RTT.Seconds() }),
	perPeer("dynactor_peer_queued_bytes", gauge, "What waits to be written to the member.", func(p peer) float64 { return float64(p.link.QueuedBytes) }),
	perPeer("dynactor_peer_connects_total", counter, "Connections for requests that came up.", func(p peer) float64 { return float64(p.link.Connects) }),
	perPeer("dynactor_peer_sent_bytes_total", counter, "Bytes sent to the member.", func(p peer) float64 { return float64(p.link.SentBytes) }),
	perPeer("dynactor_peer_received_bytes_total", counter, "Bytes received from the member.", func(p peer) float64 { return float64(p.link.ReceivedBytes) }),
	perPeer("dynactor_peer_sent_messages_total", counter, "Messages sent to the member.", func(p peer) float64 { return float64(p.link.Sent) }),
	perPeer("dynactor_peer_received_messages_total", counter, "Messages received from the member.", func(p peer) float64 { return float64(p.link.Received) }),
	many("dynactor_link_dropped_messages_total", counter, "Messages that did not get through, to or from anybody, by reason.", []string{"reason"}, func(l *look, observe func(float64, ...string)) {
		for r := link.Full; r <= link.Undecodable; r++ {
			observe(float64(l.links.Dropped[r]), word(r.String()))
		}
	}),
	many("dynactor_connections_refused_total", counter, "Connections that were refused: for who said hello, or because there were too many.", []string{"reason"}, func(l *look, observe func(float64, ...string)) {
		observe(float64(l.links.Refused), "hello")
		observe(float64(l.links.Rejected), "limit")
	}),
	one("dynactor_connections", gauge, "Open connections, of nodes and clients.", func(l *look) float64 { return float64(l.links.Connections) }),
	one("dynactor_clients_connected", gauge, "Clients that are connected.", func(l *look) float64 { return float64(l.clients) }),
}

// perPeer is an instrument of each other member.
func perPeer(name, kind, help string, value func(peer) float64) instrument {
	return many(name, kind, help, []string{"peer"}, func(l *look, observe func(float64, ...string)) {
		for _, p := range l.peers {
			observe(value(p), string(p.Node))
		}
	})
}

func isClient(p link.PeerStatus) bool { return p.Role == messages.RoleClient && p.Up() }
