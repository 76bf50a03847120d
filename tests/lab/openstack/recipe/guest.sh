#!/bin/bash
# A guest of a fake hypervisor: guest.sh DIRECTORY runs DIRECTORY/user-data in a copy of this root, which is what a
# server's cloud-init would do with it. Its console is DIRECTORY/console.log; poweroff ends it. First process of
# namespaces of its own, made by unshare.
set -eu
here=$1
mount --make-rprivate /
mount -t tmpfs -o mode=755 guest "$here/run"
mkdir "$here/run/files" "$here/run/work" "$here/run/root"
root=$here/run/root
mount -t overlay -o "lowerdir=/,upperdir=$here/run/files,workdir=$here/run/work" guest "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=755 guest "$root/dev"
for device in null zero full random urandom tty; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
ln -s /proc/self/fd "$root/dev/fd"
for stream in 0:stdin 1:stdout 2:stderr; do ln -s "/proc/self/fd/${stream%:*}" "$root/dev/${stream#*:}"; done
mkdir "$root/dev/shm" "$root/dev/pts"
mount -t devpts -o newinstance,ptmxmode=0666 guest "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
touch "$root/dev/console"
mount --bind "$here/console.log" "$root/dev/console"
# Volumes of labvolumes.py, as udev shows disks of virtio; they are free again when this guest, and its mounts, are gone
mkdir -p "$root/dev/disk/by-id"
while read -r number file; do
    loop=$(losetup --find --show "$file")
    exec {kept}<>"$loop"
    losetup --detach "$loop"
    touch "$root$loop"
    mount --bind "$loop" "$root$loop"
    ln -s "$loop" "$root/dev/disk/by-id/virtio-${number:0:20}"
done <"$here/volumes"
mount -t tmpfs -o mode=1777 guest "$root/tmp"
mount -t tmpfs -o mode=755 guest "$root/run"
for name in poweroff systemctl; do
    install -m 755 /dev/stdin "$root/usr/local/sbin/$name" <<'END'
#!/bin/sh
kill -TERM 1
END
done
install -m 700 "$here/user-data" "$root/run/user-data"
echo "[    0.000000] a guest of the lab boots" >>"$here/console.log"
cd "$root"
# Not chroot, in which container runtimes refuse to work
mkdir .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
trap 'exit 0' TERM
env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 \
    /run/user-data </dev/null >/dev/null 2>&1 &
wait || true
# A server whose user data has run stays
while :; do sleep 3600 & wait $!; done
