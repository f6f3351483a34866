#!/usr/bin/env bash
# Harms one of three nodes under load for ten seconds and shows what clients see:
# a line a second, failures, latencies, and how long hints are kept afterwards.
#
#   scripts/failure.sh kill      kill -9, then started again
#   scripts/failure.sh freeze    SIGSTOP, then SIGCONT
set -euo pipefail
cd "$(dirname "$0")/.."

HARM=${1:-kill} PORT=${PORT:-28300}
case "$HARM" in kill | freeze) ;; *) echo "usage: $0 kill|freeze" >&2; exit 2 ;; esac
work=$(mktemp -d)
dev="" again=""
cleanup() {
  for p in $again $dev; do kill -INT "$p" 2>/dev/null || true; done
  for p in $again $dev; do wait "$p" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

./bin/node dev --data-dir "$work/data" --port "$PORT" > "$work/log" 2>&1 &
dev=$!
until grep -q 'is ready' "$work/log"; do
  kill -0 "$dev" || { cat "$work/log"; exit 1; }
  sleep 0.2
done
n2=$(awk '$1 == "n2" {print $4}' "$work/log")
readarray -d '' -t command < "/proc/$n2/cmdline"
hints() { for i in 1 21; do curl -s "http://127.0.0.1:$((PORT + i))/readyz" | grep -o '"hints":{[^}]*}'; done | tr '\n' ' '; }

./bin/node bench --node "127.0.0.1:$PORT" --mix a --clients 32 --keys 10000 --duration 25s --warmup 1s &
bench=$!
sleep 6
if [ "$HARM" = kill ]; then kill -9 "$n2"; else kill -STOP "$n2"; fi
echo "$HARM"
sleep 10
echo "back; kept: $(hints)"
if [ "$HARM" = kill ]; then "${command[@]}" > "$work/again" 2>&1 & again=$!; else kill -CONT "$n2"; fi
wait "$bench"
for _ in $(seq 60); do
  kept=$(hints)
  echo "kept: $kept"
  if ! grep -q '"records":[1-9]' <<< "$kept"; then exit 0; fi
  sleep 1
done
echo "hints are left after a minute" >&2
exit 1
