#!/bin/bash
# Inside the root, beside a running cloud: starts Blazar, and says "ready" when it answers. It ends with this.
set -euo pipefail
. /recipe/lib.sh
blazar-manager --config-file /etc/blazar/blazar.conf >$LOG/blazar-manager.log 2>&1 &
service blazar-api $((P + 5)) /usr/bin/blazar-api-wsgi 3
web $((P + 5))/
say ready
wait
