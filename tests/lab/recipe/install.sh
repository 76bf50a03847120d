#!/bin/bash
# Inside a fresh Debian root: install.sh PACKAGE... installs Slurm and what its jobs use.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
# A root can be built anew, so nothing has to survive a power cut; nobody reads manuals here
cat >/etc/dpkg/dpkg.cfg.d/lab <<'LAB'
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/info/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/lintian/*
LAB
rm -rf /usr/share/doc/* /usr/share/man/* /usr/share/info/* /usr/share/locale/*
# A mirror's snapshot may be older than its Release file allows
cat >/etc/apt/apt.conf.d/lab <<'LAB'
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
Acquire::Retries "3";
APT::Install-Recommends "false";
Dpkg::Use-Pty "0";
LAB
apt-get -qq update
apt-get -qq -y install "$@"
