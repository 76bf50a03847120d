#!/bin/bash
# Inside the root, before each start: start.sh NODE... makes the directories of condor's daemons and the pool's key.
set -euo pipefail
install -d -o condor -g condor -m 755 /run/condor /run/condor/lock /var/log/condor /var/lib/condor /var/lib/condor/spool
for node in "$@"; do install -d -o condor -g condor -m 755 "/var/lib/condor/execute-$node"; done
# podman plays docker for one machine
install -d -m 755 /run/podman /etc/containers
printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "/var/lib/containers/storage"\n' \
    >/etc/containers/storage.conf
printf '[[registry]]\nlocation = "127.0.0.1"\ninsecure = true\n' >/etc/containers/registries.conf.d/lab.conf
(umask 077 && head -c 64 /dev/urandom | base64 -w 0 >/etc/condor/passwords.d/POOL)
