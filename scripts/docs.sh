#!/usr/bin/env bash
# The documentation as a site in build/site: no page of it asks anybody's server for anything. Strict: a link that leads
# nowhere, or a page that no menu names, is an error. Its tools are in an environment of their own, pinned by hash.
source "$(dirname "$0")/common.sh"
trap give_back EXIT

venv=build/docs-venv
if [ ! -e "$venv/.installed" ] || [ locks/docs.txt -nt "$venv/.installed" ]; then
  say "installing mkdocs-material into $venv"
  python3 -m venv --clear "$venv"
  "$venv/bin/pip" install -q --disable-pip-version-check --require-hashes -r locks/docs.txt
  touch "$venv/.installed"
fi
NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --strict "$@" 2>&1 | sed '/^INFO/d' >&2 # --quiet would hide what is strict about it
say "docs: build/site/index.html"
