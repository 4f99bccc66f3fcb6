#!/usr/bin/env bash
# Three experiments each by real coding agents in the agent's container, through broker and desk: Claude Code, opencode,
# mini-swe-agent. A stand-in plays their model (CLAUDE_MODEL: the name that Claude Code asks for); nothing costs money.
# Needs the registries of npm and pip for the images.
#   demo-clients.sh [CLIENT...]   NPM_CONFIG_USERCONFIG=FILE   npm's configuration for the build
source "$(dirname "$0")/common.sh"
PORT=${GLOVEBOX_STANDIN_PORT:-8765}
WORK=$(mktemp -d)
STANDIN=
finish() {
  [ -z "$STANDIN" ] || kill "$STANDIN" 2>/dev/null || true
  rm -rf "$WORK"
  give_back
}
trap finish EXIT

PROMPT="Read program.md. Edit train.py, run one experiment with the command: bench run 'what changed'. Then stop."
command_of() {
  case $1 in
    claude-code) printf '["claude", "-p", "%s", "--model", "%s", "--dangerously-skip-permissions"]' "$2" "${CLAUDE_MODEL:-claude-sonnet-5-5}" ;;
    opencode) printf '["opencode", "run", "%s"]' "$2" ;;
    mini-swe-agent) printf '["mini", "-y", "--exit-immediately", "-m", "anthropic/claude-sonnet-5-5", "-t", "%s"]' "$2" ;;
    *) fail "$1 is none of them (fix: claude-code, opencode, mini-swe-agent)" ;;
  esac
}

image() { # image CLIENT
  local options=() npmrc=${NPM_CONFIG_USERCONFIG:-$HOME/.npmrc}
  [ ! -f "$npmrc" ] || options+=(--secret "id=npmrc,src=$npmrc")
  [ ! -f "${SSL_CERT_FILE:-}" ] || options+=(--secret "id=ca_bundle,src=$SSL_CERT_FILE")
  [ ! -f "${PIP_CONFIG_FILE:-}" ] || options+=(--secret "id=pip_conf,src=$PIP_CONFIG_FILE")
  [ ! -d "${GLOVEBOX_WHEELS:-${PIP_FIND_LINKS:-}}" ] || options+=(--build-context "wheels=${GLOVEBOX_WHEELS:-$PIP_FIND_LINKS}")
  say "image glovebox/agent-$1:dev: building"
  DOCKER_BUILDKIT=1 docker build -q --build-arg BASE_IMAGE=glovebox/base:dev "${options[@]}" -f Dockerfile.agent --target "$1" \
    -t "glovebox/agent-$1:dev" . >/dev/null || fail "the image of $1 could not be built (fix: see the lines above)"
}

scripts/venv.sh
scripts/engine-up.sh
scripts/images.sh
glovebox=$PWD/.venv/bin/glovebox
PYTHONPATH=$PWD .venv/bin/python -m tests.standin.shell "$PORT" &
STANDIN=$!
clients=("$@")
[ $# -gt 0 ] || clients=(claude-code opencode mini-swe-agent)
for client in "${clients[@]}"; do
  words=$(command_of "$client" "$PROMPT")
  image "$client"
  export GLOVEBOX_HOME=$WORK/$client
  mkdir -m 700 "$GLOVEBOX_HOME"
  (cd "$WORK" && "$glovebox" init >/dev/null 2>&1 && "$glovebox" prepare --profile demo --seconds 6 >/dev/null)
  mkdir -p "$GLOVEBOX_HOME/policies"
  cp policies/broker.yaml policies/agent.yaml policies/sandbox.yaml policies/decision.yaml "$GLOVEBOX_HOME/policies/"
  sed -i -e "s#^upstream: .*#upstream: http://127.0.0.1:$PORT#" -e 's/^auth: .*/auth: none/' "$GLOVEBOX_HOME/policies/broker.yaml"
  sed -i "s#^command: .*#command: $words#" "$GLOVEBOX_HOME/policies/agent.yaml"
  # A client of this kind keeps a database and a log of its own in memory.
  sed -i -e "s#glovebox/agent:dev#glovebox/agent-$client:dev#" -e '/^agent:/,$s/^  file_bytes: .*/  file_bytes: 67108864/' \
    -e '/^agent:/,$s/^  tmp_bytes: .*/  tmp_bytes: 536870912/' -e '/^agent:/,$s/^  memory_bytes: .*/  memory_bytes: 2147483648/' \
    "$GLOVEBOX_HOME/policies/sandbox.yaml"
  sed -i 's/^rule: .*/rule: upstream/' "$GLOVEBOX_HOME/policies/decision.yaml"
  say "$client: three experiments"
  "$glovebox" run --tag "$client" --agent command --more 4
  "$glovebox" verify | tail -1
done
