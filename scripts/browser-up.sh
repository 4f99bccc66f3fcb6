#!/usr/bin/env bash
# A Chromium for the tests of report.html, if none is there. Only `make test` needs it.
source "$(dirname "$0")/common.sh"

for name in "${GLOVEBOX_CHROMIUM:-}" chromium chromium-browser google-chrome; do
  [ -n "$name" ] && have "$name" && exit 0
done
hint="fix: install Chromium, or name one in GLOVEBOX_CHROMIUM"
[ "$(id -u)" = 0 ] || fail "no Chromium to look at the report with ($hint)"
[ -e /etc/debian_version ] || fail "no Chromium to look at the report with ($hint)"
say "browser: installing chromium (for the tests of the report)"
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o Acquire::Languages=none update
apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install chromium >/dev/null
