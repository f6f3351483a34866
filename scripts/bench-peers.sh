#!/usr/bin/env bash
# Three nodes of ours against a three-member etcd, on this machine, in one run,
# interleaved: the same keys, values, distribution and number of clients, the
# load program and all servers sharing the cores. Prints a table, and each
# measurement as a line of JSON to the file named by OUT.
#
#   what a "yes" means: ours, fsynced on 2 of 3, read from 2 of 3, siblings kept;
#   etcd, fsynced on 2 of 3 through the leader's log, reads linearizable.
set -euo pipefail
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-2} DURATION=${DURATION:-10s} CLIENTS=${CLIENTS:-64} KEYS=${KEYS:-100000} MIXES=${MIXES:-"put get a b"}
OUT=${OUT:-}
work=$(mktemp -d)
pids=()
cleanup() {
  for p in "${pids[@]:-}"; do kill "$p" 2>/dev/null || true; done
  for p in "${pids[@]:-}"; do wait "$p" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

GOWORK=off go -C tools/etcd build -trimpath -o "$work/bin/" ./load go.etcd.io/etcd/server/v3
mv "$work/bin/v3" "$work/bin/etcd" 2>/dev/null || mv "$work/bin/server" "$work/bin/etcd"

# etcd, with its defaults.
cluster="e1=http://127.0.0.1:27801,e2=http://127.0.0.1:27811,e3=http://127.0.0.1:27821"
etcd_pids=() endpoints=""
for i in 1 2 3; do
  client=$((27790 + 10 * i)) peer=$((27791 + 10 * i))
  "$work/bin/etcd" --name "e$i" --data-dir "$work/e$i" --log-level error \
    --listen-client-urls "http://127.0.0.1:$client" --advertise-client-urls "http://127.0.0.1:$client" \
    --listen-peer-urls "http://127.0.0.1:$peer" --initial-advertise-peer-urls "http://127.0.0.1:$peer" \
    --initial-cluster "$cluster" --initial-cluster-state new > "$work/e$i.log" 2>&1 &
  pids+=($!) etcd_pids+=($!)
  endpoints="${endpoints:+$endpoints,}127.0.0.1:$client"
done

# ours, with its defaults.
./bin/node dev --data-dir "$work/ours" --port 27900 --cluster bench > "$work/ours.log" 2>&1 &
dev=$!
pids+=("$dev")
until grep -q 'is ready' "$work/ours.log"; do
  kill -0 "$dev" || { cat "$work/ours.log"; exit 1; }
  sleep 0.2
done
our_pids=$(awk '$1 ~ /^n[0-9]$/ {print $4}' "$work/ours.log" | paste -sd, -)

ours() { ./bin/node bench --node 127.0.0.1:27900 --cluster bench --json --clients "$CLIENTS" --keys "$KEYS" "$@" 2>/dev/null; }
# The client logs every request that the end of a run cuts short.
etcd() { "$work/bin/load" -endpoints "$endpoints" -clients "$CLIENTS" -keys "$KEYS" "$@" 2>> "$work/etcd-client.log" || { tail -5 "$work/etcd-client.log" >&2; return 1; }; }
etcd_cpu=$(IFS=,; echo "${etcd_pids[*]}")

echo "loading $KEYS keys into both ..." >&2
etcd -load
ours --mix get --duration 1s --warmup 0s > /dev/null

for round in $(seq "$ROUNDS"); do
  for mix in $MIXES; do
    echo "round $round, $mix ..." >&2
    ours --mix "$mix" --no-load --duration "$DURATION" --cpu-of "$our_pids" >> "$work/results"
    etcd -mix "$mix" -duration "$DURATION" -cpu-of "$etcd_cpu" >> "$work/results"
  done
done
if [ -n "$OUT" ]; then cp "$work/results" "$OUT"; fi

# A table: the mean over the rounds, and ours over etcd.
awk -v clients="$CLIENTS" '
function field(name,   v) { if (match($0, "\"" name "\":[^,}]*")) { v = substr($0, RSTART, RLENGTH); sub(/^[^:]*:/, "", v); gsub(/"/, "", v); return v } }
function part(op,   v) { if (match($0, "\"" op "\":{[^}]*}")) return substr($0, RSTART, RLENGTH) }
function num(text, name,   v) { if (match(text, "\"" name "\":[^,}]*")) { v = substr(text, RSTART, RLENGTH); sub(/^[^:]*:/, "", v); return v + 0 } return 0 }
{ s = field("store"); m = field("mix"); k = s SUBSEP m; if (!(m in seen)) { seen[m] = ++n; order[n] = m }
  ops[k] += field("ops_per_second"); cpu[k] += field("cpu_us_per_op"); failed[k] += field("failed"); c[k]++
  op = (m == "put") ? "puts" : "gets"; p50[k] += num(part(op), "p50_ms"); p99[k] += num(part(op), "p99_ms"); p999[k] += num(part(op), "p99_9_ms") }
END { printf "%d clients, both on this machine; mean of the rounds\n", clients
  printf "%-4s %-9s %9s %8s %8s %8s %10s %7s\n", "mix", "store", "ops/s", "p50 ms", "p99 ms", "p99.9 ms", "CPU us/op", "failed"
  for (i = 1; i <= n; i++) { m = order[i]
    for (j = 1; j <= 2; j++) { s = (j == 1) ? "dynactor" : "etcd"; k = s SUBSEP m
      printf "%-4s %-9s %9.0f %8.2f %8.2f %8.2f %10.0f %7d\n", m, s, ops[k]/c[k], p50[k]/c[k], p99[k]/c[k], p999[k]/c[k], cpu[k]/c[k], failed[k] }
    a = "dynactor" SUBSEP m; b = "etcd" SUBSEP m
    printf "%-4s ratio     %9.2f %37s %.2f\n", m, (ops[a]/c[a])/(ops[b]/c[b]), "", (cpu[a]/c[a])/(cpu[b]/c[b]) } }' "$work/results"
