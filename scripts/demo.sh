#!/usr/bin/env bash
# From a fresh clone to five real experiments and a report. Safe to repeat: each time is a new run.
source "$(dirname "$0")/common.sh"
trap give_back EXIT

scripts/venv.sh
scripts/engine-up.sh
scripts/images.sh
glovebox=.venv/bin/glovebox
"$glovebox" init
say "artifacts: tokenizer and data (signed)"
# On a slow or busy machine six seconds are two steps, and every gain is noise.
seconds=$(docker run --rm -i --network none -e OMP_WAIT_POLICY=PASSIVE glovebox/trainer:dev python - <scripts/pace.py)
"$glovebox" prepare --profile demo --seconds "$seconds" --if-missing
tag=demo
for ((n = 2; ; n++)); do
  [ -e "${GLOVEBOX_HOME:-.glovebox}/tags/$tag" ] || break
  tag=demo-$n
done
say "five experiments by the scripted agent, tag $tag"
"$glovebox" run --tag "$tag" --agent scripted --more 5
say "what it gained: baseline and best in turns, on seeds nothing was chosen by"
"$glovebox" confirm --tag "$tag"
say "done: $("$glovebox" report --tag "$tag")"
