#!/usr/bin/env bash
# pytest in the project's environment; files it leaves belong to the checkout's owner.
#   pytest.sh [-m EXPRESSION]
# The evaluator's tests only compute: they share the processors, one thread each. All others, many of which watch clocks
# and processors of containers, run one after another.
source "$(dirname "$0")/common.sh"
LOG=$(mktemp)
trap 'give_back; rm -f "$LOG"' EXIT

run() { .venv/bin/python -m pytest "$@" | tee -a "$LOG"; }

code=0
workers=$(($(nproc) < 4 ? $(nproc) : 4)) # each takes up to 3 GiB
OMP_NUM_THREADS=1 run tests/evaluator --numprocesses "$workers" --dist worksteal "$@" || code=$?
run tests --ignore=tests/evaluator "$@" || code=$?
awk '/^=+ .*(passed|failed|error).* in [0-9.]+s/ { for (i = 2; i <= NF; i++) if ($i ~ /^(passed|failed|skipped|errors?),?$/) { sub(",", "", $i); count[$i] += $(i - 1) } }
  END { for (word in count) printf "%d %s  ", count[word], word; print "in all" }' "$LOG"
exit "$code"
