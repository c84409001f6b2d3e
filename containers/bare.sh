#!/usr/bin/env bash
# bare.sh SUITE ROOT [OPTION...]: the steps of the images without a container engine, as root on Debian: installs them
# into the bare root file system ROOT, which debootstrap makes where it is not there, then trains in it with 4 ranks
# through `make run`, with these options of `python -m ddhpc`. SUITE is bookworm (Debian 12) or trixie (13), say.
set -euo pipefail
suite=$1 root=$2 project=$(dirname "$(dirname "$(readlink -f "$0")")")
shift 2
started=$SECONDS
if [ ! -e "$root" ]; then
  if ! command -v debootstrap >/dev/null; then
    echo "debootstrap: not found; expected it on PATH: apt-get install debootstrap" >&2
    exit 2
  fi
  debootstrap --variant=minbase "$suite" "$root"
fi
root=$(readlink -f "$root")
echo "ddhpc: a bare $suite after $((SECONDS - started)) s"

mkdir -p "$root/opt/ddhpc"
sed -n '/^%files/,/^$/s|^ \+\([^ ]*\) .*|\1|p' "$project/containers/ddhpc.def" |
  xargs -I{} cp -r "$project/{}" "$root/opt/ddhpc/"

# authorities that this machine trusts beside Debian's, as of a network that looks into HTTPS
own=/usr/local/share/ca-certificates
[ ! -d "$own" ] || { mkdir -p "$root$own" && cp -r "$own/." "$root$own/"; }

# processes and mounts in it end with this
# shellcheck disable=SC2016 # the shell in the file system expands its own
unshare --mount --pid --fork --kill-child chroot "$root" /bin/bash -euo pipefail -c '
  mount -t proc proc /proc
  mount -t sysfs -o ro sysfs /sys
  mkdir -p /dev/shm
  mount -t tmpfs tmpfs /dev/shm
  export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  /opt/ddhpc/containers/install.sh
  echo "ddhpc: installed after $1 s and $SECONDS s"
  cd /tmp
  make -C /opt/ddhpc run RANKS=4 ARGS="${*:2}"' bash "$((SECONDS - started))" "$@"
echo "ddhpc: from nothing to a trained model in $((SECONDS - started)) s"
