#!/bin/bash
# machine.sh NAME: a machine inside of this one for a Kubernetes of the tests, until standard input ends.
#
# Network, mounts and processes are namespaces of their own. The network has no way out: no interface of it leads to
# the machine's. /run is empty, /var can be written to and keeps nothing, /run/klamm takes the cluster's files and is
# memory. There are no time zones, as there are none in the images. All of it vanishes with the first process in there, which is killed when this script ends, however it ends.
# Only control groups outlive that. They carry NAME; /tmp/NAME is locked for as long as they are in use, so that
# whoever starts next removes what a killed run left, and only that.
set -u
name=$1 home=/tmp

# groups_of NAME: the control groups of that name, those of every hierarchy or the only ones.
groups_of() { find /sys/fs/cgroup -mindepth 1 -maxdepth 2 -type d -name "$1" 2>/dev/null; }

# remove NAME: what is left once its processes are gone. A group can be busy for a moment longer.
remove() {
  local try group
  for try in {1..50}; do
    for group in $(groups_of "$1"); do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
    [ -z "$(groups_of "$1")" ] && break
    sleep 0.1
  done
  rm -f "$home/$1"
}

# The first process of the namespaces: makes the machine, says so, and buries who dies without parents.
inside() {
  local pid
  # This is still the outer /proc: it tells the number by which others know this process.
  read -r pid _ </proc/self/stat
  mount -t proc proc /proc &&
    mount -t tmpfs -o mode=755 tmpfs /run && mkdir -p /run/netns /run/klamm &&
    mount -t tmpfs -o mode=755,size=6g tmpfs /run/klamm && mkdir -p /run/klamm/{tmp,var,work} &&
    mount -t overlay -o lowerdir=/var,upperdir=/run/klamm/var,workdir=/run/klamm/work overlay /var &&
    { [ ! -d /usr/share/zoneinfo ] || mount -t tmpfs -o ro tmpfs /usr/share/zoneinfo; } &&
    echo "nameserver 10.40.0.1" >/run/klamm/resolv.conf && mount --bind /run/klamm/resolv.conf /etc/resolv.conf &&
    ip link set lo up && ip link add br0 type bridge && ip addr add 10.40.0.1/24 dev br0 && ip link set br0 up ||
    exit 1
  echo "$pid"
  exec </dev/null >/dev/null 2>&1
  while :; do sleep 1000 & wait $!; done
}

if [ "${2:-}" = inside ]; then
  inside
  exit
fi

for left in "$home"/klamm-kubernetes-*; do
  [ -f "$left" ] || continue
  (flock -n 9 && remove "${left##*/}") 9<"$left"
done

# Until it is there and ours: another run may take it for one that was left, between the two.
until [ -e "$home/$name" ]; do
  exec 9>"$home/$name"
  flock 9
done
# In every hierarchy one for the machine and in it one for each node; a processor set takes nobody before it has
# processors.
for base in /sys/fs/cgroup /sys/fs/cgroup/*/; do
  [ -e "$base/cgroup.procs" ] && { [ "$base" = /sys/fs/cgroup ] || [ -e "$base/tasks" ]; } || continue
  for group in "$name" "$name"/node{1,2,3}; do
    mkdir -p "$base/$group" || exit 1
    [ -e "$base/tasks" ] && [ -e "$base/cpuset.cpus" ] || continue
    cat "$base/cpuset.cpus" >"$base/$group/cpuset.cpus" && cat "$base/cpuset.mems" >"$base/$group/cpuset.mems"
  done
done
# Else all pods together weigh as much as one process of this machine, and starve beside compilers and other tests.
for file in /sys/fs/cgroup/{,*/}"$name"/cpu.{shares,weight}; do
  [ -w "$file" ] || continue
  case $file in *shares) echo 16384 ;; *) echo 1600 ;; esac >"$file"
done 2>/dev/null
# The first process inside, not who waits for it: then nobody is left for others to bury.
end() { kill -KILL $(cat "/proc/$space/task/$space/children" 2>/dev/null || echo "$space") 2>/dev/null; }
trap 'end; wait; remove "$name"' EXIT
trap 'exit 1' INT TERM HUP
setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child bash "$0" "$name" inside <&- &
space=$!
while read -r _; do :; done
