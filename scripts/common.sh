# Shared by the scripts: progress lines, and files that belong to whoever owns the checkout.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
STARTED=${GLOVEBOX_STARTED:-$(date +%s)}
export GLOVEBOX_STARTED=$STARTED

say() { printf '[%4ds] %s\n' "$(($(date +%s) - STARTED))" "$*" >&2; }
fail() { printf 'glovebox: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# Which torch: as asked for; else the CPU build where offline wheels hold one, else PyPI's with CUDA.
torch_build() {
  local wheels=${GLOVEBOX_WHEELS:-${PIP_FIND_LINKS:-}}
  if [ -n "${GLOVEBOX_TORCH:-}" ]; then echo "$GLOVEBOX_TORCH"
  elif [ -n "$wheels" ] && compgen -G "$wheels/torch-*+cpu-*.whl" >/dev/null; then echo cpu
  else echo cuda; fi
}
engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

# Root working in someone else's checkout must not leave root-owned files there.
give_back() {
  [ "$(id -u)" = 0 ] && [ "$(stat -c %u .)" != 0 ] || return 0
  local path
  for path in .venv build .glovebox .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info; do
    [ -e "$path" ] && chown -R --reference=. "$path"
  done
  find . -name __pycache__ -user root -not -path './.venv/*' -not -path './.glovebox/*' -exec chown -R --reference=. {} + || true
}
