#!/usr/bin/env bash
# Make .venv and install the project: `venv.sh` for the command line, `venv.sh test` for the tests too.
source "$(dirname "$0")/common.sh"
trap give_back EXIT

extra=${1:-}
have python3 || fail "python3 is missing (fix: apt-get install python3)"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "Python 3.11 or newer is needed (found $(python3 -V))"
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
  [ "$(id -u)" = 0 ] && have apt-get || fail "python3-venv is missing (fix: apt-get install python3-venv)"
  say "installing python3-venv"
  apt-get -qq update
  apt-get -qq -y install --no-install-recommends python3-venv >/dev/null
fi

stamp=.venv/.installed-${extra:-base}
if [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt locks/runner.txt ]; then exit 0; fi
[ -x .venv/bin/pip ] || { say "creating .venv"; python3 -m venv --clear .venv; }
say "installing the project${extra:+ with [$extra]} into .venv"
pip=(.venv/bin/pip install -q --disable-pip-version-check)
"${pip[@]}" --require-hashes -r locks/runner.txt
"${pip[@]}" --no-deps --no-build-isolation -e .
if [ -n "$extra" ]; then
  # The tests' torch is the images' (images.sh), else pip's own: from PyPI the CUDA build, 2.6 GB.
  [ -z "${GLOVEBOX_TORCH:-}" ] || "${pip[@]}" ${GLOVEBOX_TORCH_INDEX:+--extra-index-url "$GLOVEBOX_TORCH_INDEX"} \
    "$(sed -n 's/^ *"\(torch==[0-9.]*\)",$/\1/p' pyproject.toml)+$GLOVEBOX_TORCH"
  "${pip[@]}" --no-build-isolation -e ".[$extra]"
fi
touch "$stamp"
[ -z "$extra" ] || touch .venv/.installed-base
