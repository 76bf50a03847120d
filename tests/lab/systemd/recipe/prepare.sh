#!/bin/bash
# Inside the root, once: what a booted system without a console, a network and a clock of its own can do without.
set -euo pipefail
rm -f /usr/sbin/policy-rc.d
systemctl mask --quiet console-getty.service getty@.service systemd-networkd.service systemd-resolved.service \
    systemd-timesyncd.service systemd-logind.service systemd-firstboot.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \
    fstrim.timer dpkg-db-backup.timer systemd-tmpfiles-clean.timer
systemctl set-default --quiet multi-user.target
# Several of them may boot from the same root
rm -f /etc/machine-id /etc/hostname
# What is logged is read by tests, and ends with the machine
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' >/etc/systemd/journald.conf.d/lab.conf
