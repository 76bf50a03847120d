#!/bin/bash
# Inside the root, before each start: start.sh NODE... makes the directories of condor's daemons and the pool's key.
set -euo pipefail
install -d -o condor -g condor -m 755 /run/condor /run/condor/lock /var/log/condor /var/lib/condor /var/lib/condor/spool
for node in "$@"; do install -d -o condor -g condor -m 755 "/var/lib/condor/execute-$node"; done
(umask 077 && head -c 64 /dev/urandom | base64 -w 0 >/etc/condor/passwords.d/POOL)
