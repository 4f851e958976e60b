#!/bin/bash
# promtool, which reads alert rules as Prometheus does: out of Debian's package into $KLAMM_CACHE/bin, without installing the
# server beside it.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
install_promtool() {
  local dir
  dir=$(mktemp -d)
  cd "$dir"
  retry apt-get download prometheus || { apt-get update -qq; retry apt-get download prometheus; }
  dpkg -x prometheus_*.deb files
  mkdir -p "$KLAMM_CACHE/bin"
  mv files/usr/bin/promtool "$KLAMM_CACHE/bin/promtool"
  cd /
  rm -rf "$dir"
  "$KLAMM_CACHE/bin/promtool" --version
  finished promtool "$mark"
}
mark=$(fingerprint <(declare -f install_promtool))
once promtool "$mark" install_promtool
