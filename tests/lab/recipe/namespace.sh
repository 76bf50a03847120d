#!/usr/bin/env bash
# The first process of a lab's namespaces, started by `unshare --mount --uts --pid --fork`:
#   namespace.sh ROOT PLACE overlay|direct NAME [SOURCE TARGET ro|rw]...
#
# It makes ROOT its own root (pivot_root: in a chroot the kernel refuses user namespaces, which containers need), says
# its process id as the host counts, and then waits for the end of its stdin. With it end all processes and mounts of
# the namespaces, so the kernel clears up whatever way the one who holds the other end of stdin ended.
set -euo pipefail
root=$1 place=$2 mode=$3 name=$4
shift 4
# /proc is still the host's
read -r pid _ </proc/self/stat
hostname "$name"
new=$place/root
if [ "$mode" = overlay ]; then
    # What the lab writes lies in memory, above a root that stays as it was built
    mount -t tmpfs -o mode=755 lab "$place/upper"
    mkdir "$place/upper/files" "$place/upper/work"
    mount -t overlay -o "lowerdir=$root,upperdir=$place/upper/files,workdir=$place/upper/work" lab "$new"
else
    mount --bind "$root" "$new"
fi
mount --rbind /dev "$new/dev"
mount --rbind /sys "$new/sys"
mount -t proc proc "$new/proc"
mount -t tmpfs -o mode=1777 lab "$new/tmp"
mount -t tmpfs -o mode=755 lab "$new/run"
while [ $# -gt 0 ]; do
    if [ -d "$1" ]; then
        mkdir -p "$new$2"
    else
        mkdir -p "$new$(dirname "$2")"
        touch "$new$2"
    fi
    mount --bind "$1" "$new$2"
    [ "$3" = rw ] || mount -o remount,bind,ro "$new$2"
    shift 3
done
cd "$new"
mkdir -p .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
echo "$pid"
# bash collects the children that daemons leave to the first process. What a control group has frozen cannot be killed.
exec /bin/bash -c '
    while read -r _; do :; done
    if [ -d /run/groups/freezer ]; then
        kill -KILL -1
        find /run/groups/freezer -name freezer.state -exec sh -c "for state; do echo THAWED >\$state; done" sh {} +
    fi'
