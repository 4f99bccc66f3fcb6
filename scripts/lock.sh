#!/usr/bin/env bash
# Pin what the images, the host and the tests are made of, every file by its hash: locks/*.txt.
#   lock.sh                 newest versions that pyproject.toml, agent/requirements.txt and locks/*.in allow
#   lock.sh --upgrade-package NAME   only that one
# torch has two: torch-cuda.txt is PyPI's with the CUDA it brings, torch-cpu.txt PyTorch's own CPU build, whose hashes no
# index here tells: whoever raises its version writes them into locks/torch-cpu.hashes, from PyTorch's index.
source "$(dirname "$0")/common.sh"
have uv || fail "uv is missing (fix: pip install uv)"
BUILD=$(mktemp --suffix=.in)
UNUSED=$(mktemp --suffix=.txt)
WHOLE=$(mktemp --suffix=.txt)
trap 'rm -f "$BUILD" "$UNUSED" "$WHOLE"; give_back' EXIT
printf 'hatchling>=1.27\neditables\n' >"$BUILD" # what installs the project itself

lock() { # lock NAME SOURCE... [OPTION...]
  local name=$1
  shift
  compile "locks/$name.txt" "$@"
  say "locks/$name.txt: $(grep -c '^[a-z]' "locks/$name.txt") packages"
}

compile() { # compile FILE SOURCE... [OPTION...]
  uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --no-emit-index-url \
    --python-version 3.11 --output-file "$@"
}

# A resolution with torch, in two files: what does not depend on its build, and torch with the CUDA that PyPI's brings.
apart() { # apart REST CUDA SOURCE... [OPTION...]
  local rest=$1 cuda=$2
  shift 2
  cat "$rest" "$cuda" >"$WHOLE" 2>/dev/null || true # what is pinned now stays, unless upgraded
  compile "$WHOLE" "$@"
  awk -v cuda="$cuda" -v rest="$rest" '
    /^[a-z]/ { out = /^(torch==|triton==|nvidia-|cuda-)/ ? cuda : rest }
    { print > out }' "$WHOLE"
  say "$rest, $cuda: $(grep -c '^[a-z]' "$WHOLE") packages"
}

mkdir -p locks
[ "$#" -gt 0 ] || set -- --upgrade
lock runner pyproject.toml "$BUILD" "$@"
lock agent agent/requirements.txt "$@"
lock gateway locks/gateway.in "$@"
lock docs locks/docs.in "$@"
apart locks/trainer.txt locks/torch-cuda.txt trainer/requirements.txt "$@"
awk '/^torch==/ { print $1 " \\" } END { while ((getline line < "locks/torch-cpu.hashes") > 0)
  if (line ~ /^[0-9a-f]/) text = text (text ? " \\\n" : "") "    --hash=sha256:" substr(line, 1, 64); print text }' \
  locks/torch-cuda.txt >locks/torch-cpu.txt
# What tests need: the runner's own versions, but where one of their packages has no use for them.
awk '/^[a-z]/ { skip = /^pillow==/ } !skip' locks/runner.txt >"$BUILD" # trackio: below 13
apart locks/test.txt "$UNUSED" pyproject.toml --extra test --constraint "$BUILD" "$@" # torch: as above
