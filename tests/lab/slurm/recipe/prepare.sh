#!/bin/bash
# Inside the root, once: the people, what they may do, the database's files, the container runtimes' settings.
set -euo pipefail
# A '*' for a password: nobody can log in by one, and sshd does not take the account for a locked one, as with '!'
groupadd -g 2000 hpcusers
uid=2001
for user in alice bob carol ebhpc; do
    useradd -m -u $uid -s /bin/bash -p '*' $user
    uid=$((uid + 1))
done
for user in alice bob carol; do usermod -a -G hpcusers $user; done
for user in mysql restd; do
    id $user >/dev/null 2>&1 || useradd -r -M -s /usr/sbin/nologin $user
done
# The broker's service account submits as the people and asks for their tokens; nothing else
cat >/etc/sudoers.d/ebhpc <<'SUDO'
Defaults:ebhpc env_keep += "SLURM_CONF SLURM_JWT", !requiretty
ebhpc ALL=(%hpcusers) NOPASSWD: /usr/bin/sbatch, /usr/bin/scancel
ebhpc ALL=(slurm) NOPASSWD: /usr/bin/scontrol token *
SUDO
chmod 440 /etc/sudoers.d/ebhpc
visudo -cq

mkdir -p /etc/slurm /etc/mysql/mariadb.conf.d /var/lib/slurm /var/log/slurm /opt/ebhpc
chown slurm: /var/lib/slurm /var/log/slurm
# A GPU is a device file that jobs get by name
for gpu in 0 1 2 3; do mknod -m 666 /var/lib/slurm/gpu$gpu c 1 3; done
cat >/etc/slurm/cgroup.conf <<'CGROUP'
CgroupPlugin=disabled
CGROUP
cat >/etc/slurm/oci.conf <<'OCI'
EnvExclude="^(SLURM_CONF|SLURM_CONF_SERVER)="
RunTimeEnvExclude="^(SLURM_CONF|SLURM_CONF_SERVER)="
RunTimeQuery="runc --rootless=true --root=/tmp/runc-%U/ state %n.%u.%j.%s.%t"
RunTimeKill="runc --rootless=true --root=/tmp/runc-%U/ kill -a %n.%u.%j.%s.%t"
RunTimeDelete="runc --rootless=true --root=/tmp/runc-%U/ delete --force %n.%u.%j.%s.%t"
RunTimeRun="runc --rootless=true --root=/tmp/runc-%U/ run %n.%u.%j.%s.%t -b %b"
OCI
rm -f /etc/mysql/my.cnf
cat >/etc/mysql/my.cnf <<'SQL'
[client-server]
socket=/run/mysqld/mysqld.sock
[mariadbd]
skip-networking
skip-log-bin
datadir=/var/lib/mysql
innodb_buffer_pool_size=64M
innodb_log_file_size=8M
innodb_lock_wait_timeout=900
# Nothing here has to survive a power cut
innodb_flush_log_at_trx_commit=0
innodb_doublewrite=0
performance_schema=0
SQL
rm -rf /var/lib/mysql
mkdir -p /var/lib/mysql
chown mysql: /var/lib/mysql
mariadb-install-db --user=mysql --datadir=/var/lib/mysql --skip-test-db >/dev/null
