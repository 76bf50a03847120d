#!/bin/bash
# Inside the root, before each start: start.sh SSH-DIRECTORY SSH-PORT makes run-time directories and SSH keys.
set -euo pipefail
install -d -o munge -g munge -m 755 /run/munge
install -d -o munge -g munge -m 700 /var/lib/munge /var/log/munge
install -d -o slurm -g slurm /run/slurm /var/lib/slurm/slurmctld /var/log/slurm
install -d -o mysql -g mysql /run/mysqld
install -d -m 755 /run/sshd /etc/ssh/lab
install -d -m 755 /run/user
[ -n "$1" ] || exit 0
mkdir -p "$1"
chmod 700 "$1"
rm -f /etc/ssh/lab/host_key "$1/id"
ssh-keygen -q -t ed25519 -N '' -C lab -f /etc/ssh/lab/host_key
ssh-keygen -q -t ed25519 -N '' -C ebhpc -f "$1/id"
echo "[127.0.0.1]:$2 $(cut -d' ' -f1,2 /etc/ssh/lab/host_key.pub)" >"$1/known_hosts"
install -d -o ebhpc -g ebhpc -m 700 ~ebhpc/.ssh
install -o ebhpc -g ebhpc -m 600 "$1/id.pub" ~ebhpc/.ssh/authorized_keys
