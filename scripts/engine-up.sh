#!/usr/bin/env bash
# A container engine, if none answers: as root on Debian install and start one, otherwise say what to do.
# Safe to repeat. Nothing is changed while an engine answers (DOCKER_HOST is honoured).
#   GLOVEBOX_WITH_RUNSC=1   also install gVisor's runsc
source "$(dirname "$0")/common.sh"

if engine_answers; then
  say "engine: $(docker version --format '{{.Server.Version}}') answers"
  docker buildx version >/dev/null 2>&1 || fail "docker buildx is missing (fix: install docker-buildx, or docker-buildx-plugin)"
  exit 0
fi
[ -z "${DOCKER_HOST:-}" ] || fail "no container engine answers at $DOCKER_HOST (fix: start it, or unset DOCKER_HOST)"
[ "$(id -u)" = 0 ] || fail "no container engine answers (fix: start Docker, or run: sudo scripts/engine-up.sh)"
[ -e /etc/debian_version ] || fail "no container engine answers (fix: install Docker Engine 24 or newer and start it)"

plugin() {
  local folder
  for folder in /usr/libexec/docker/cli-plugins /usr/lib/docker/cli-plugins /usr/local/lib/docker/cli-plugins ~/.docker/cli-plugins; do
    [ -x "$folder/$1" ] && return 0
  done
  return 1
}

install_engine() {
  local need=()
  have dockerd || need+=(docker.io)
  have docker || need+=(docker-cli)
  plugin docker-compose || need+=(docker-compose)
  plugin docker-buildx || need+=(docker-buildx)
  have iptables || need+=(iptables)
  have mmdebstrap || need+=(mmdebstrap)
  [ -z "${GLOVEBOX_WITH_RUNSC:-}" ] || have runsc || need+=(runsc)
  [ ${#need[@]} -gt 0 ] || return 0
  say "engine: installing ${need[*]} (root on Debian, no engine answers)"
  if grep -qs '^12' /etc/debian_version; then newer_docker; fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq -o Acquire::Languages=none update
  apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install "${need[@]}" >/dev/null
}

# Bookworm's engine predates compose 2 and buildx. Only the packages named here come from trixie; runc and
# libc stay bookworm's, since trixie's runc would bring its libc along.
newer_docker() {
  local mirror
  mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' | awk '$2=="bookworm"{print $1; exit}')
  [ -n "$mirror" ] || fail "no bookworm mirror among the apt sources (fix: add one, then repeat)"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >/etc/apt/sources.list.d/glovebox-trixie.list
  printf 'Package: *\nPin: release n=trixie\nPin-Priority: 100\n\nPackage: docker.io docker-cli docker-compose docker-buildx containerd runsc\nPin: release n=trixie\nPin-Priority: 600\n' \
    >/etc/apt/preferences.d/glovebox-trixie
}

start_engine() {
  local log=/var/log/glovebox-dockerd.log
  exec 9>/run/glovebox-engine.lock
  flock 9 # two of us at once: one starts it
  ! engine_answers || return 0
  if [ -d /run/systemd/system ]; then systemctl start docker; else
    say "engine: starting dockerd (log: $log)"
    mkdir -p /etc/docker
    if [ ! -e /etc/docker/daemon.json ] && have runsc; then
      echo '{"runtimes": {"runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--network=none", "--host-uds=open"]}}}' >/etc/docker/daemon.json
    fi
    mountpoint -q /sys/fs/cgroup || mount -t cgroup2 cgroup2 /sys/fs/cgroup || true
    if [ -e /run/docker.pid ] && ! kill -0 "$(cat /run/docker.pid)" 2>/dev/null; then rm -f /run/docker.pid; fi
    # Small kernels may lack nf_tables: fall back to the legacy tables.
    if ! iptables -w -t nat -S >/dev/null 2>&1; then update-alternatives --set iptables /usr/sbin/iptables-legacy >/dev/null 2>&1 || true; fi
    (setsid dockerd >"$log" 2>&1 </dev/null 9>&- &)
  fi
  for _ in $(seq 300); do
    if engine_answers; then say "engine: $(docker version --format '{{.Server.Version}}') is up"; return 0; fi
    sleep 0.1
  done
  tail -5 "$log" >&2 || true
  fail "the engine did not start in 30 s (fix: see $log)"
}

install_engine
start_engine
