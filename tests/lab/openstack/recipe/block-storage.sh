#!/bin/bash
# Inside the root: starts Cinder in a cloud that runs, and stays.
set -euo pipefail
. /recipe/lib.sh
install -d /run/lock/cinder /run/volumes /var/lib/cinder
service cinder-api $((P + 14)) /usr/bin/cinder-wsgi 1
cinder-scheduler --config-file /etc/cinder/cinder.conf >$LOG/cinder-scheduler.log 2>&1 &
cinder-volume --config-file /etc/cinder/cinder.conf >$LOG/cinder-volume.log 2>&1 &
wait
