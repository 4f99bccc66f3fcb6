#!/usr/bin/env bash
# pytest in the project's environment; files it leaves belong to the checkout's owner.
source "$(dirname "$0")/common.sh"
trap give_back EXIT
.venv/bin/python -m pytest "$@"
