#!/usr/bin/env bash
# Three nodes with KEYS records grow to five and shrink to three again while clients
# work. Fails when a request fails, a record is missing or different afterwards, or more
# moves than 5 % above the least possible; states latencies before and during.
set -euo pipefail
cd "$(dirname "$0")/.."

KEYS=${KEYS:-1000000} PORT=${PORT:-28400} CLIENTS=${CLIENTS:-8}
work=$(mktemp -d)
pids=()
cleanup() {
  for p in "${pids[@]}"; do kill -TERM "$p" 2>/dev/null || true; done
  for p in "${pids[@]}"; do wait "$p" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT

address() { echo "127.0.0.1:$((PORT + 10 * $1))"; }
node() { # NUMBER FLAG...
  local i=$1; shift
  ./bin/node start --name "n$i" --listen "$(address "$i")" --http "127.0.0.1:$((PORT + 10 * i + 1))" --data-dir "$work/n$i" "$@" > "$work/n$i.log" 2>&1 &
  pids+=($!)
}
ready() { until curl -sf "http://127.0.0.1:$((PORT + 10 * $1 + 1))/readyz" > /dev/null; do sleep 0.2; done; }
cluster() { ./bin/node cluster "$@" --node "$(address 1)" --timeout 15s; }
moving() { cluster status --json | grep -q '"moving":true'; }
staged() { cluster status --json | grep -o '"staged":\[[^]]*\]' | grep -o '"[a-z-]* n[0-9]"' | wc -l; }

node 1 --found --seed "$(address 2)" --seed "$(address 3)"
node 2 --seed "$(address 1)" --seed "$(address 3)"
node 3 --seed "$(address 1)" --seed "$(address 2)"
for i in 1 2 3; do ready "$i"; done

awk -v n="$KEYS" 'BEGIN { for (i = 0; i < n; i++) printf "{\"id\":\"item-%08d\",\"price\":%d,\"text\":\"%064x\"}\n", i, (i * 7919) % 100000, i }' > "$work/records"
./bin/node import --node "$(address 1)" --bucket items --key id "$work/records" > /dev/null 2> "$work/err" || { cat "$work/err" >&2; exit 1; }
echo "imported $KEYS records"

bench() { # WHAT SECONDS; more of it while the ring moves when SECONDS is 0
  local what=$1 seconds=$2 first=1
  while [ "$first" = 1 ] || { [ "$seconds" = 0 ] && moving; }; do
    first=0
    ./bin/node bench --node "$(address 1)" --mix a --clients "$CLIENTS" --keys 10000 --no-load --warmup 1s --duration "$([ "$seconds" = 0 ] && echo 10 || echo "$seconds")s" --json > "$work/bench" 2> "$work/err" || { cat "$work/err" >&2; exit 1; }
    echo "$what: $(cat "$work/bench")" | tee -a "$work/all"
  done
}
commit() { # WHAT
  cluster plan
  cluster plan --json | grep -o '"moves":[0-9]*,"least_moves":[0-9]*' | tr -c '0-9\n' ' ' |
    awk -v what="$1" '{ if ($1 > $2 * 1.05) { print what ": " $1 " moves, " $2 " would do" > "/dev/stderr"; exit 1 } }'
  cluster commit > /dev/null
  date +%s > "$work/began"
}
finished() { while moving; do sleep 1; done; echo "$1 took at most $(($(date +%s) - $(cat "$work/began"))) s"; }

./bin/node bench --node "$(address 1)" --mix put --clients "$CLIENTS" --keys 10000 --warmup 0s --duration 5s > /dev/null 2>&1
bench before 20
for i in 4 5; do node "$i" --seed "$(address 1)"; done
until [ "$(staged)" = 2 ]; do sleep 0.2; done
commit "3 to 5"
bench "3 to 5" 0
finished "3 to 5"
cluster members
bench "with 5" 20
cluster leave n4 > /dev/null; cluster leave n5 > /dev/null
commit "5 to 3"
bench "5 to 3" 0
finished "5 to 3"
cluster members
bench after 20
./bin/node export --node "$(address 1)" --bucket items > "$work/exported" 2> "$work/err" || { cat "$work/err" >&2; exit 1; }
LC_ALL=C sort "$work/exported" | cmp - "$work/records"
if grep -q '"failed":[1-9]\|"unknown":[1-9]\|"errors":[1-9]' "$work/all"; then echo "requests failed" >&2; exit 1; fi
echo "equal; no request failed"
