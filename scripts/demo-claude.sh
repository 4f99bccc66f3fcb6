#!/usr/bin/env bash
# Ten experiments by the model-driven agent through docker compose. With ANTHROPIC_API_KEY set the real model
# proposes (and costs money, at most policies/broker.yaml's budget); without, a stand-in served beside the broker.
#   GLOVEBOX_EXPERIMENTS=N   another number
source "$(dirname "$0")/common.sh"
trap 'finish; give_back' EXIT

export GLOVEBOX_HOME=${GLOVEBOX_HOME:-$PWD/.glovebox-claude} GLOVEBOX_EXPERIMENTS=${GLOVEBOX_EXPERIMENTS:-10}
ENV_FILE=$GLOVEBOX_HOME/compose.env
compose() { docker compose --project-name glovebox-demo --env-file "$ENV_FILE" "${FILES[@]}" "$@"; }
finish() { [ ! -e "$ENV_FILE" ] || compose down --volumes --timeout 30 >/dev/null 2>&1 || true; }
FILES=(-f compose.yaml)

scripts/venv.sh
scripts/engine-up.sh
scripts/images.sh all
glovebox=.venv/bin/glovebox
mkdir -p "$GLOVEBOX_HOME/secrets"
chmod 700 "$GLOVEBOX_HOME" "$GLOVEBOX_HOME/secrets"
if [ -n "${ANTHROPIC_API_KEY:-}" ]; then
  rm -rf "$GLOVEBOX_HOME/policies"
  (umask 077 && printf '%s\n' "$ANTHROPIC_API_KEY" >"$GLOVEBOX_HOME/secrets/anthropic_api_key")
else
  say "no ANTHROPIC_API_KEY: a stand-in plays the model"
  FILES+=(-f tests/standin/compose.yaml)
  mkdir -p "$GLOVEBOX_HOME/policies"
  cp policies/*.yaml "$GLOVEBOX_HOME/policies/"
  sed -i 's#^upstream: .*#upstream: http://standin:8765#' "$GLOVEBOX_HOME/policies/broker.yaml"
  (umask 077 && echo stand-in-needs-no-key >"$GLOVEBOX_HOME/secrets/anthropic_api_key")
fi
unset ANTHROPIC_API_KEY
"$glovebox" init --env-file "$ENV_FILE"
say "artifacts: tokenizer and data (signed)"
"$glovebox" prepare --profile demo --if-missing
tag=claude
for ((n = 2; ; n++)); do
  [ -e "$GLOVEBOX_HOME/tags/$tag" ] || break
  tag=claude-$n
done
export GLOVEBOX_TAG=$tag
say "$GLOVEBOX_EXPERIMENTS experiments through docker compose, tag $tag"
compose up --detach --quiet-pull 2>&1 | sed -n 's/^ *\(Container .*\(Started\|Healthy\)\).*/         \1/p' >&2
agent=$(compose ps --all --quiet agent)
compose logs --follow --no-log-prefix runner >&2
code=$(docker inspect --format '{{.State.ExitCode}}' "$(compose ps --all --quiet runner)")
[ "$code" = 0 ] || { compose logs --tail 20 broker launcher agent >&2; fail "the runner ended with exit code $code (fix: see the lines above)"; }
"$glovebox" status --tag "$tag"
say "the agent's container, as the engine sees it:"
docker inspect "$agent" --format '  network: {{.HostConfig.NetworkMode}}; capabilities dropped: {{.HostConfig.CapDrop}}; root read-only: {{.HostConfig.ReadonlyRootfs}}
  environment: {{json .Config.Env}}
{{range .Mounts}}  {{if .RW}}writable{{else}}read-only{{end}} {{.Destination}}
{{end}}'
