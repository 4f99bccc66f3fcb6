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
if [ -e "$stamp" ] && [ "$stamp" -nt pyproject.toml ] && [ "$stamp" -nt locks/runner.txt ] \
  && [ "$stamp" -nt locks/test.txt ]; then exit 0; fi
[ -x .venv/bin/pip ] || { say "creating .venv"; python3 -m venv --clear .venv; }
say "installing the project${extra:+ with [$extra]} into .venv"
pip=(.venv/bin/pip install -q --disable-pip-version-check)
from_index() { "${pip[@]}" ${GLOVEBOX_TORCH_INDEX:+--extra-index-url "$GLOVEBOX_TORCH_INDEX"} "$@"; }
IMAGES_PYTHON='import platform, sys; sys.exit((sys.version_info[:2], platform.machine()) != ((3, 11), "x86_64"))'
"${pip[@]}" --require-hashes -r locks/runner.txt
"${pip[@]}" --no-deps --no-build-isolation -e .
if [ -n "$extra" ]; then
  # The tests' torch is the images' (Dockerfile.trainer); from PyPI that is the CUDA build, 2.6 GB.
  "${pip[@]}" --require-hashes -r locks/test.txt
  torch=$(torch_build)
  if [ "$torch" = cpu ] && ! .venv/bin/python -c "$IMAGES_PYTHON"; then
    say "torch for another Python than the images': pinned by its version, not by its hash"
    torch=+cpu
  fi
  case $torch in
    cuda) "${pip[@]}" --require-hashes -r locks/torch-cuda.txt ;;
    cpu) from_index --require-hashes -r locks/torch-cpu.txt ;;
    *) from_index "$(sed -n 's/^\(torch==[0-9.]*\).*/\1/p' locks/torch-cuda.txt)+${torch#+}" ;;
  esac
  "${pip[@]}" --no-deps --no-build-isolation -e ".[$extra]"
fi
touch "$stamp"
[ -z "$extra" ] || touch .venv/.installed-base
