package telemetry

import (
	"strings"

	"github.com/dynactor/dynactor/actors/rt"
	"github.com/dynactor/dynactor/storage"
)

// word makes the value of a label of some words.
func word(s string) string { return strings.ReplaceAll(s, " ", "_") }

// stored is an instrument of the store.
func stored(name, kind, help string, value func(storage.Stats) float64) instrument {
	return one("dynactor_storage_"+name, kind, help, func(l *look) float64 { return value(l.figures.Storage) })
}

// cached is an instrument of the store's caches.
func cached(name, help string, value func(storage.Cache) uint64) instrument {
	return many("dynactor_storage_"+name, counter, help, []string{"cache"}, func(l *look, observe func(float64, ...string)) {
		observe(float64(value(l.figures.Storage.Records)), "records")
		observe(float64(value(l.figures.Storage.Blocks)), "blocks")
	})
}

var storageInstruments = []instrument{
	stored("failed", gauge, "1 once the store has failed: the node ends.", func(s storage.Stats) float64 { return truth(s.Failed != nil) }),
	stored("full", gauge, "1 while writes are refused because the disk is full.", func(s storage.Stats) float64 { return truth(s.Full) }),
	stored("disk_bytes", gauge, "What the store takes on disk, logs included.", func(s storage.Stats) float64 { return float64(s.DiskBytes) }),
	stored("memory_bytes", gauge, "What the store's caches and unflushed writes take.", func(s storage.Stats) float64 { return float64(s.MemoryBytes) }),
	stored("memtable_bytes", gauge, "Writes that are in no table yet.", func(s storage.Stats) float64 { return float64(s.Internals.MemTableBytes) }),
	stored("commits_total", counter, "Batches committed.", func(s storage.Stats) float64 { return float64(s.Commits) }),
	stored("syncs_total", counter, "Syncs of the log: commits by syncs is how many share one.", func(s storage.Stats) float64 { return float64(s.Syncs) }),
	stored("commits_pending", gauge, "Batches that are committed and not durable yet.", func(s storage.Stats) float64 { return float64(s.Pending) }),
	stored("wal_bytes", gauge, "Size of the write-ahead log.", func(s storage.Stats) float64 { return float64(s.Internals.LogBytes) }),
	stored("wal_written_bytes_total", counter, "Bytes written to the write-ahead log.", func(s storage.Stats) float64 { return float64(s.Internals.LogWritten) }),
	stored("read_amplification", gauge, "In how many places a read may have to look.", func(s storage.Stats) float64 { return float64(s.Internals.ReadAmplification) }),
	stored("tables", gauge, "Tables on disk.", func(s storage.Stats) float64 { return float64(s.Internals.Tables) }),
	stored("compactions_total", counter, "Compactions that ended.", func(s storage.Stats) float64 { return float64(s.Internals.Compactions) }),
	stored("compactions_failed_total", counter, "Compactions that failed.", func(s storage.Stats) float64 { return float64(s.Internals.CompactionsFailed) }),
	stored("compactions_running", gauge, "Compactions under way.", func(s storage.Stats) float64 { return float64(s.Internals.CompactionsRunning) }),
	stored("compaction_debt_bytes", gauge, "What is still to be compacted.", func(s storage.Stats) float64 { return float64(s.Internals.CompactionDebt) }),
	stored("compacted_bytes_total", counter, "Bytes that compactions have written.", func(s storage.Stats) float64 { return float64(s.Internals.CompactedBytes) }),
	stored("flushes_total", counter, "Flushes of writes in memory to tables.", func(s storage.Stats) float64 { return float64(s.Internals.Flushes) }),
	stored("flushed_bytes_total", counter, "Bytes that flushes have written.", func(s storage.Stats) float64 { return float64(s.Internals.FlushedBytes) }),
	stored("damaged_blocks_total", counter, "Damaged blocks that were met; one counts each time.", func(s storage.Stats) float64 { return float64(s.Corruptions) }),
	cached("cache_hits_total", "What the cache of records, and that of blocks, had when asked.", func(c storage.Cache) uint64 { return c.Hits }),
	cached("cache_misses_total", "What the cache of records, and that of blocks, had not when asked.", func(c storage.Cache) uint64 { return c.Misses }),
	one("dynactor_storage_reads_waiting", gauge, "Reads of the store that wait for a reader.", func(l *look) float64 { return float64(l.figures.WaitingReads) }),
}

// perKind is an instrument of the actors of each kind.
func perKind(name, kind, help string, value func(rt.KindStats) float64) instrument {
	return many(name, kind, help, []string{"kind"}, func(l *look, observe func(float64, ...string)) {
		for _, k := range l.kinds {
			observe(value(k), k.Kind)
		}
	})
}

var actorInstruments = []instrument{
	perKind("dynactor_actors", gauge, "Actors that live.", func(k rt.KindStats) float64 { return float64(k.Live) }),
	perKind("dynactor_mailbox_messages", gauge, "Messages that wait for actors.", func(k rt.KindStats) float64 { return float64(k.Queued + k.Control) }),
	perKind("dynactor_mailbox_bytes", gauge, "What they weigh.", func(k rt.KindStats) float64 { return float64(k.Bytes) }),
	perKind("dynactor_mailbox_oldest_seconds", gauge, "For how long the oldest message waits.", func(k rt.KindStats) float64 { return k.Oldest.Seconds() }),
	perKind("dynactor_handler_longest_seconds", gauge, "For how long an actor is busy with one message; the one that is longest.", func(k rt.KindStats) float64 { return k.InHandler.Seconds() }),
	perKind("dynactor_mailbox_handled_total", counter, "Messages handled; not counted of actors of a single request.", func(k rt.KindStats) float64 { return float64(k.Processed) }),
	perKind("dynactor_mailbox_shed_total", counter, "Messages refused because the mailbox was full or its actor gone.", func(k rt.KindStats) float64 { return float64(k.Shed) }),
	perKind("dynactor_mailbox_expired_total", counter, "Messages dropped because their time was over.", func(k rt.KindStats) float64 { return float64(k.Expired) }),
	perKind("dynactor_actor_restarts_total", counter, "Restarts of actors by their supervisor, and new starts of those that an operator has killed.", func(k rt.KindStats) float64 { return float64(k.Restarts) }),
	perKind("dynactor_actor_failures_total", counter, "Panics of actors, also of those that were not restarted, without those that an operator restarts.", func(k rt.KindStats) float64 { return float64(k.Panics) }),
	one("dynactor_timers_armed", gauge, "Timers that are armed.", func(l *look) float64 { return float64(l.figures.Timers) }),
}
