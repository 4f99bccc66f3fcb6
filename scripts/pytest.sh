#!/usr/bin/env bash
# pytest in the project's environment; files it leaves belong to the checkout's owner.
#   pytest.sh [check] [ARGUMENTS]
# Tests without containers share the processors, one thread each. Those with containers, many of which watch clocks and
# processors of containers, run one after another, but for those that may run beside each other (tests/conftest.py).
# check: only those that need no engine and no more than a few seconds.
source "$(dirname "$0")/common.sh"
LOG=$(mktemp)
trap 'give_back; rm -f "$LOG"' EXIT

run() { .venv/bin/python -m pytest --durations=10 "$@" | tee -a "$LOG"; }

code=0
workers=$(($(nproc) < 4 ? $(nproc) : 4)) # each takes up to 3 GiB
apart=(--numprocesses "$workers" --dist worksteal)
if [ "${1:-}" = check ]; then
  shift
  OMP_NUM_THREADS=1 run tests -m "not engine and not slow" "${apart[@]}" "$@" || code=$?
else
  OMP_NUM_THREADS=1 run tests -m "not engine" "${apart[@]}" "$@" || code=$?
  run tests -m "engine and beside" "${apart[@]}" "$@" || code=$?
  run tests -m "engine and not beside" "$@" || code=$?
fi
awk '/^=+ .*(passed|failed|error).* in [0-9.]+s/ { for (i = 2; i <= NF; i++) if ($i ~ /^(passed|failed|skipped|errors?),?$/) { sub(",", "", $i); count[$i] += $(i - 1) } }
  END { for (word in count) printf "%d %s  ", count[word], word; print "in all" }' "$LOG"
exit "$code"
