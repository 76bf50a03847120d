#!/bin/bash
# Inside the root, last: take away what only the building needed.
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
[ $# -eq 0 ] || apt-get -qq -y purge "$@"
apt-get -qq -y autoremove --purge
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/*.log
mkdir -p /var/cache/ldconfig
find / -xdev -name __pycache__ -path '*/python3/*' -prune -exec rm -rf {} +
