#!/bin/bash
# Inside the root: apptainer is in Debian's unstable alone. Only what no other suite has is taken from there.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | head -n 1)
echo "deb $mirror sid main" >/etc/apt/sources.list.d/sid.list
printf 'Package: *\nPin: release n=sid\nPin-Priority: 100\n' >/etc/apt/preferences.d/sid
apt-get -qq update
apt-get -qq -y install apptainer
rm /etc/apt/sources.list.d/sid.list /etc/apt/preferences.d/sid
