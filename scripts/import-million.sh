#!/usr/bin/env bash
# Imports RECORDS synthetic records into three nodes, exports them again,
# compares, and states the peak resident memory of each node (VmHWM). Fails
# when a record is missing or different, or a node took more than LIMIT_MB.
set -euo pipefail
cd "$(dirname "$0")/.."

RECORDS=${RECORDS:-1000000} LIMIT_MB=${LIMIT_MB:-512} PORT=${PORT:-28200}
work=$(mktemp -d)
dev=""
cleanup() {
  if [ -n "$dev" ]; then kill -INT "$dev" 2>/dev/null || true; wait "$dev" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

awk -v n="$RECORDS" 'BEGIN { for (i = 0; i < n; i++)
  printf "{\"id\":\"item-%08d\",\"name\":\"Article %d of the catalogue\",\"price\":%d,\"stock\":%d,\"text\":\"%032x\"}\n",
    i, i, (i * 7919) % 100000, i % 97, i }' > "$work/records"

./bin/node dev --data-dir "$work/data" --port "$PORT" > "$work/log" 2>&1 &
dev=$!
until grep -q 'is ready' "$work/log"; do
  kill -0 "$dev" || { cat "$work/log"; exit 1; }
  sleep 0.2
done
pids=$(awk '$1 ~ /^n[0-9]$/ {print $4}' "$work/log")

peaks() { # of all nodes, in MB
  for p in $pids; do awk '/^VmHWM/ {printf "%d ", $2 / 1024}' "/proc/$p/status"; done
}
timed() { # what was done with all records, and how fast
  local what=$1 start=$EPOCHREALTIME; shift
  "$@"
  awk -v n="$RECORDS" -v s="$start" -v e="$EPOCHREALTIME" -v what="$what" -v peaks="$(peaks)" -v size="$(head -1 "$work/records" | wc -c)" \
    'BEGIN { printf "%s %d records of %s bytes in %.0f s, %.0f a second; peak MB per node: %s\n", what, n, size, e - s, n / (e - s), peaks }'
}
import() { ./bin/node import --node "127.0.0.1:$PORT" --bucket items --key id "$work/records" > /dev/null 2> "$work/err" || { cat "$work/err" >&2; return 1; }; }
export_() { ./bin/node export --node "127.0.0.1:$PORT" --bucket items > "$work/exported" 2> "$work/err" || { cat "$work/err" >&2; return 1; }; }

timed imported import
timed exported export_
LC_ALL=C sort "$work/exported" > "$work/sorted"
cmp "$work/records" "$work/sorted"
for mb in $(peaks); do
  [ "$mb" -le "$LIMIT_MB" ] || { echo "a node took $mb MB, more than $LIMIT_MB"; exit 1; }
done
echo "equal"
