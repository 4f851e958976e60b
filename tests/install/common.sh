# Shared by the install scripts: where things go, one run at a time per thing, retries.
# Sourced, not run. Everything lands under $KLAMM_CACHE (default ~/.cache/klamm); a stamp file named after the
# inputs says that a thing is complete, so a second run costs nothing and a changed pin installs anew.
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
TESTS=$(dirname "$HERE")
KLAMM_CACHE=${KLAMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/klamm}
mkdir -p "$KLAMM_CACHE/stamps" "$KLAMM_CACHE/logs"

# say TEXT: one line of progress on stderr.
say() { printf 'install: %s\n' "$*" >&2; }

# retry CMD...: registries answer late or not at all now and then.
retry() {
  local try
  for try in 1 2 3 4; do
    "$@" && return 0
    say "attempt $try failed: $1"
    sleep $((try * 3))
  done
  return 1
}

# fingerprint FILE...: a short name for the inputs of an install.
fingerprint() { cat "$@" | sha256sum | cut -c1-16; }

# once NAME FINGERPRINT FUNCTION: run FUNCTION unless its stamp exists; safe when several runs start together.
once() {
  local name=$1 stamp="$KLAMM_CACHE/stamps/$1-$2" log="$KLAMM_CACHE/logs/install-$1.log"
  [ -e "$stamp" ] && return 0
  (
    flock 9
    [ -e "$stamp" ] && exit 0
    say "$name …"
    # In the background: `set -e` is off in whatever is run to have its result tested, however deep.
    (set -e; "$3") >"$log" 2>&1 &
    wait $! || :
    if [ ! -e "$stamp.done" ]; then
      say "$name failed; the end of $log:"
      tail -20 "$log" >&2
      exit 1
    fi
    rm -f "$stamp.done"
    touch "$stamp"
  ) 9>"$KLAMM_CACHE/stamps/$name.lock"
}

# finished NAME FINGERPRINT: the last line of an install function.
finished() { touch "$KLAMM_CACHE/stamps/$1-$2.done"; }

# need COMMAND DEBIAN-PACKAGE...: install the packages when the command is missing.
need() {
  local command=$1
  shift
  command -v "$command" >/dev/null 2>&1 && return 0
  (
    flock 9
    command -v "$command" >/dev/null 2>&1 && exit 0
    say "$command: apt-get install $*"
    local sudo=
    [ "$(id -u)" = 0 ] || sudo=sudo
    retry $sudo apt-get update -qq >"$KLAMM_CACHE/logs/apt.log" 2>&1
    DEBIAN_FRONTEND=noninteractive retry $sudo apt-get install -y -qq --no-install-recommends "$@" >>"$KLAMM_CACHE/logs/apt.log" 2>&1
    command -v "$command" >/dev/null 2>&1
  ) 9>"$KLAMM_CACHE/stamps/apt.lock" || { say "$command could not be installed; see $KLAMM_CACHE/logs/apt.log"; return 1; }
}
