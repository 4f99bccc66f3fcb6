#!/usr/bin/env bash
# The base image and ours: `images.sh` for trainer and agent, `images.sh all` for the runner's too (compose), `images.sh gateway`
# for the translator's alone (compose.gateway.yaml). Repeating it rebuilds only what changed.
#   GLOVEBOX_WHEELS=DIR        offline wheels for the builds (default: pip's own find-links folder, if local)
#   GLOVEBOX_TORCH=BUILD       cpu, cu126 or cu130 in the trainer; glovebox doctor --gpu says which a GPU needs
#   GLOVEBOX_TORCH_INDEX=URL   a package index that has it (PyTorch's installation page names one for each)
source "$(dirname "$0")/common.sh"

case ${1:-} in
  '') ROOMS="trainer agent" ;;
  all) ROOMS="trainer agent runner" ;;
  gateway) ROOMS=gateway ;;
  *) fail "$1 is none of them (fix: nothing, all or gateway)" ;;
esac
umask 022 # of the base image that is made here
BASE=glovebox/base:dev
WORK=$(mktemp -d)
LOG=$WORK/log
trap 'rm -rf "$WORK"' EXIT

# The pinned base of the Dockerfiles; without a registry, the same Python on the same Debian, made here.
base_image() {
  local pinned
  pinned=$(sed -n 's/^ARG BASE_IMAGE=//p' Dockerfile.trainer)
  if docker image inspect "$pinned" >/dev/null 2>&1; then docker tag "$pinned" "$BASE"; return 0; fi
  docker image inspect "$BASE" >/dev/null 2>&1 && return 0
  say "base: pulling $pinned"
  if timeout 90 docker pull -q "$pinned" >/dev/null 2>"$LOG"; then docker tag "$pinned" "$BASE"; return 0; fi
  say "base: no registry answers, building one from Debian packages (about half a minute)"
  have mmdebstrap || { [ "$(id -u)" = 0 ] && have apt-get && apt-get -qq update \
    && apt-get -qq -y --no-install-recommends install mmdebstrap >/dev/null; } \
    || fail "the base image cannot be pulled ($(head -c 200 "$LOG")) nor built (fix: allow $pinned, or apt-get install mmdebstrap)"
  local mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk '$2=="bookworm"{print $1; exit}')
  [ -n "$mirror" ] || fail "no bookworm mirror among the apt sources (fix: add one, or pull $pinned and tag it $BASE)"
  # To a file first: an import from a failing pipe would leave an empty image behind.
  mmdebstrap --quiet --mode=auto --variant=minbase --include=python3-minimal,python3-venv,ca-certificates \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt=force-unsafe-io \
    bookworm "$WORK/base.tar" "$mirror" || fail "the base image could not be built (fix: see the lines above)"
  docker import --change 'CMD ["bash"]' "$WORK/base.tar" "$BASE" >/dev/null
}

# Optional inputs of a build: offline wheels, a pip configuration, a CA bundle. Absent means not mounted.
build_options() {
  OPTIONS=(--build-arg "BASE_IMAGE=$BASE")
  local wheels=${GLOVEBOX_WHEELS:-${PIP_FIND_LINKS:-}} bundle=${SSL_CERT_FILE:-} conf=${PIP_CONFIG_FILE:-}
  [ -n "$wheels" ] && [ -d "$wheels" ] && OPTIONS+=(--build-context "wheels=$wheels")
  [ -n "$bundle" ] && [ -f "$bundle" ] && OPTIONS+=(--secret "id=ca_bundle,src=$bundle")
  [ -n "$conf" ] && [ -f "$conf" ] && OPTIONS+=(--secret "id=pip_conf,src=$conf")
  case ${GLOVEBOX_TORCH:-} in
    '' | cpu | cu126 | cu130) ;;
    *) fail "GLOVEBOX_TORCH=$GLOVEBOX_TORCH is no build of torch (fix: cpu, cu126 or cu130)" ;;
  esac
  OPTIONS+=(--build-arg "TORCH=$(torch_build)" --build-arg "TORCH_INDEX=${GLOVEBOX_TORCH_INDEX:-}")
  [ "$(torch_build)" != cuda ] || [ "$ROOMS" = gateway ] || torch_from_pip
}

# What pip's own index gives, said before the download begins.
torch_from_pip() {
  say "trainer: torch as pip's index has it; from PyPI that is CUDA 13, 2.6 GB to download once, minutes to unpack"
  [ -e /dev/nvidiactl ] || say "trainer: no NVIDIA GPU here: GLOVEBOX_TORCH=cpu GLOVEBOX_TORCH_INDEX=URL takes 0.2 GB (the URL of CPU \
builds is on PyTorch's installation page)"
}

build() { # build ROOM
  say "image glovebox/$1:dev: building"
  if ! DOCKER_BUILDKIT=1 docker build --progress=plain "${OPTIONS[@]}" -f "Dockerfile.$1" -t "glovebox/$1:dev" . 2>&1 \
    | tee "$LOG" | sed -u -n 's/^#[0-9]* \(\[[a-z].*\]\) \([A-Z]* .\{0,70\}\).*/         \1 \2/p' >&2; then
    tail -15 "$LOG" >&2
    fail "building glovebox/$1:dev failed (fix: see the lines above; behind a proxy set PIP_CONFIG_FILE and SSL_CERT_FILE)"
  fi
}

base_image
build_options
for room in $ROOMS; do build "$room"; done
