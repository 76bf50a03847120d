#!/bin/bash
# Inside the root, once: the people, the directories that systemd-tmpfiles would make, a small image for condor's tests.
set -euo pipefail
groupadd -g 2000 hpcusers
uid=2001
for user in alice bob carol ebhpc; do
    useradd -m -u $uid -s /bin/bash -p '*' $user
    uid=$((uid + 1))
done
for user in alice bob carol; do usermod -a -G hpcusers $user; done
rm -rf /etc/condor/config.d /var/lib/condor
install -d -m 755 /etc/condor/config.d /var/lib/condor /var/log/condor
install -d -m 700 /etc/condor/passwords.d /etc/condor/tokens.d
mkdir -p /opt/ebhpc
# The starter tries containers with a sandbox, which the package has, and with an image, which it lacks
work=$(mktemp -d)
cp -a /usr/libexec/condor/singularity_test_sandbox "$work/sandbox"
chown -R alice: "$work"
setpriv --reuid=alice --regid=alice --init-groups --reset-env apptainer -s build "$work/exit_37.sif" "$work/sandbox"
install -D -m 644 "$work/exit_37.sif" /usr/libexec/condor/exit_37.sif
rm -rf "$work"
