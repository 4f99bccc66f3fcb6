#!/usr/bin/env bash
# Pin what the runner (image and host), the agent's image and the gateway's are made of, every file by its hash: locks/*.txt.
#   lock.sh                 newest versions that pyproject.toml, agent/requirements.txt and locks/*.in allow
#   lock.sh --upgrade-package NAME   only that one
# Packages of trainer and tests that come in a CPU and a CUDA build (torch) are pinned by version alone.
source "$(dirname "$0")/common.sh"
have uv || fail "uv is missing (fix: pip install uv)"
BUILD=$(mktemp --suffix=.in)
trap 'rm -f "$BUILD"; give_back' EXIT
printf 'hatchling>=1.27\neditables\n' >"$BUILD" # what installs the project itself

lock() { # lock NAME SOURCE... [OPTION...]
  local name=$1
  shift
  uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url \
    --python-version 3.11 --output-file "locks/$name.txt" "$@"
  say "locks/$name.txt: $(grep -c '^[a-z]' "locks/$name.txt") packages"
}

mkdir -p locks
[ "$#" -gt 0 ] || set -- --upgrade
lock runner pyproject.toml "$BUILD" "$@"
lock agent agent/requirements.txt "$@"
lock gateway locks/gateway.in "$@"
lock docs locks/docs.in "$@"
