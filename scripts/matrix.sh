#!/usr/bin/env bash
# `make demo` in a fresh clone for every kind of machine a first hour is spent on, to the report each time.
#   matrix.sh [USER UMASK PYTHON LOAD]   one of them; without arguments all: root and a member of the docker group,
#                                        umask 022 and 077, each Python of PYTHONS, a quiet and a loaded machine
# Needs root (it makes the user glovebox-guest, and removes it again). PYTHONS="python3.11 /opt/3.13/bin/python3" ...
# Prints a line for each: how long it took and what it gained, or the last line of its log. Exit status 1 if one failed.
source "$(dirname "$0")/common.sh"

[ "$(id -u)" = 0 ] || fail "the matrix needs root: it runs as another user too (fix: sudo scripts/matrix.sh)"
have setpriv || fail "setpriv is missing (fix: apt-get install util-linux)"
GUEST=glovebox-guest
PYTHONS=${PYTHONS:-python3.11 python3.12 python3.13}
FAILED=0

finish() {
  kill "${BUSY[@]}" 2>/dev/null || true
  userdel "$GUEST" 2>/dev/null || true
}
BUSY=()
trap finish EXIT

# Twice as many busy processes as processors.
busy() {
  local n
  for ((n = 0; n < 2 * $(nproc); n++)); do
    sh -c 'while :; do :; done' &
    BUSY+=($!)
  done
}

one() { # one USER UMASK PYTHON LOAD
  local place log python words began=$SECONDS code=0
  place=$(mktemp -d) && log=$place.log
  chmod 755 "$place"
  python=$(command -v "$3") || { printf '%-6s %s %-10s %-6s not installed\n' "$@"; return; }
  mkdir "$place/bin" && ln -s "$(readlink -f "$("$python" -c 'import sys; print(sys.executable)')")" "$place/bin/python3"
  (umask "$2" && git clone -q . "$place/a clone") # by root: the checkout may be where the guest cannot go
  words="umask $2; export PATH=$place/bin:\$PATH HOME=$place; unset GLOVEBOX_HOME GLOVEBOX_STARTED
    cd '$place/a clone' && make demo"
  [ "$4" = quiet ] || busy
  if [ "$1" = root ]; then
    bash -c "$words" >"$log" 2>&1 || code=$?
  else
    id "$GUEST" >/dev/null 2>&1 || useradd -M -d /nonexistent -s /usr/sbin/nologin -G docker "$GUEST"
    chown -R "$GUEST" "$place"
    setpriv --reuid "$GUEST" --regid "$GUEST" --init-groups bash -c "$words" >"$log" 2>&1 || code=$?
  fi
  [ "$4" = quiet ] || { kill "${BUSY[@]}"; BUSY=(); }
  local report gain
  report=$(sed -n 's/.*done: //p' "$log")
  gain=$(grep -E '^(gain over the baseline|nothing was kept)' "$log" || true)
  if [ "$code" = 0 ] && [ -s "$report" ] && ! grep -q Traceback "$log"; then
    printf '%-6s %s %-10s %-6s %4d s  %s\n' "$@" $((SECONDS - began)) "$gain"
    rm -rf "$place" "$log"
  else
    FAILED=1
    printf '%-6s %s %-10s %-6s FAILED (%s): %s\n' "$@" "$log" "$(grep -m1 -A3 Traceback "$log" || tail -1 "$log")"
  fi
}

if [ $# = 4 ]; then
  one "$@"
else
  for user in root member; do
    for mask in 022 077; do
      for python in $PYTHONS; do
        for load in quiet loaded; do one "$user" "$mask" "$python" "$load"; done
      done
    done
  done
fi
exit "$FAILED"
