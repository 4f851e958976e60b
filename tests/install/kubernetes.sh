#!/bin/bash
# What the operator's suite makes a Kubernetes of: the programs of kubernetes/go.mod, built into
# $KLAMM_CACHE/kubernetes/bin, and from Debian what a node has besides. Cold it takes about ten minutes of processor
# time, at a low priority; with the programs there, nothing.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need go golang-go
need containerd containerd runc
need /usr/lib/cni/bridge containernetworking-plugins
need nft nftables
need iptables iptables
need conntrack conntrack
need ip iproute2
need busybox busybox-static
# Builds the Dockerfile's last stages.
need buildah buildah
# The version that Argo CD reads health with.
need lua5.1 lua5.1
# The images hold no libraries.
if ldd "$(command -v busybox)" >/dev/null 2>&1; then say "busybox here needs libraries: install busybox-static in its place"; exit 1; fi

KUBERNETES=$KLAMM_CACHE/kubernetes
# Sources and objects need 4 GB for the time of the build.
WORK=${KLAMM_BUILD_DIR:-$KLAMM_CACHE}/kubernetes-build
# version MODULE: what go.mod pins it to, without the v.
version() { sed -n "s#^[[:space:]]*$1 v\([0-9.]*\)\$#\1#p" "$HERE/kubernetes/go.mod"; }

install_kubernetes() {
  local kube helm minor flags package
  kube=$(version k8s.io/kubernetes) helm=$(version helm.sh/helm/v3)
  minor=${kube#1.} minor=${minor%%.*}
  # A server that was not told its version calls itself v0.0.0, and charts that ask for one refuse it.
  flags="-s -w -X helm.sh/helm/v3/internal/version.version=v$helm"
  for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
    flags+=" -X $package.gitVersion=v$kube -X $package.gitMajor=1 -X $package.gitMinor=$minor -X $package.gitTreeState=clean"
  done
  for package in chartutil lint/rules; do
    flags+=" -X helm.sh/helm/v3/pkg/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/$package.k8sVersionMinor=$minor"
  done
  export GOMODCACHE=$WORK/modules GOCACHE=$WORK/objects GOTMPDIR=$WORK GOFLAGS="-mod=readonly -modcacherw" CGO_ENABLED=0
  # A fifth less of processor time, as long as a compiler or linker stays below so much memory.
  export GOGC=400 GOMEMLIMIT=2GiB
  mkdir -p "$WORK" "$KUBERNETES"
  rm -rf "$KUBERNETES/new"
  cd "$HERE/kubernetes"
  # Again, should the network fail: what was built is not built twice.
  retry nice -n 5 go build -p 2 -trimpath -buildvcs=false -ldflags "$flags" -o "$KUBERNETES/new/" ./coredns tool
  # Named after the last part of its path.
  mv "$KUBERNETES/new/server" "$KUBERNETES/new/etcd"
  rm -rf "$KUBERNETES/bin"
  mv "$KUBERNETES/new" "$KUBERNETES/bin"
  rm -rf "$WORK"
  finished kubernetes "$mark"
}
mark=$(fingerprint "$HERE"/kubernetes/go.* "$HERE"/kubernetes/*/*.go <(declare -f install_kubernetes))
once kubernetes "$mark" install_kubernetes
