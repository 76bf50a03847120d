#!/bin/bash
# Inside the root: start.sh SSH-DIRECTORY SSH-PORT starts the cloud and says "ready" when a launch will go through.
# Nothing is ready before queues have consumers and hypervisors have inventories: that they are listed is not enough.
set -euo pipefail
. /recipe/lib.sh
ip link set lo up 2>/dev/null || true
rm -rf $LOG
install -d $LOG /run/guests /run/sshd /run/lock/nova /run/lock/neutron
messages
cache
database
addresses
identity
controllers
web $((P + 3))/
say "placement is up"
nova-conductor >$LOG/nova-conductor.log 2>&1 &
nova-scheduler >$LOG/nova-scheduler.log 2>&1 &

# The login host, with a host's and a user's key of this start
mkdir -p "$1" /etc/ssh/lab
chmod 700 "$1"
ssh-keygen -q -t ed25519 -N '' -C lab -f /etc/ssh/lab/host_key
ssh-keygen -q -t ed25519 -N '' -C ebhpc -f "$1/id"
# Whoever this authority has certified may log in too
ssh-keygen -q -t ed25519 -N '' -C authority -f /etc/ssh/lab/user_ca
ssh-keygen -q -t ed25519 -N '' -C certified -f "$1/certified"
ssh-keygen -q -s /etc/ssh/lab/user_ca -I ebhpc -n ebhpc -V -1h:+1d "$1/certified.pub"
echo "[127.0.0.1]:$2 $(cut -d' ' -f1,2 /etc/ssh/lab/host_key.pub)" >"$1/known_hosts"
install -d -o ebhpc -g ebhpc -m 700 ~ebhpc/.ssh ~ebhpc/.config ~ebhpc/.config/openstack
install -o ebhpc -g ebhpc -m 600 "$1/id.pub" ~ebhpc/.ssh/authorized_keys
sed "s|@IDENTITY@|http://127.0.0.1:$P/v3|g" /lab/broker-clouds.yaml |
    install -o ebhpc -g ebhpc -m 600 /dev/stdin ~ebhpc/.config/openstack/clouds.yaml

# A hypervisor that starts before the conductor listens loses ten seconds with each try
python3 /recipe/queues.py $((P + 10)) 120 conductor
say "the conductor is up"
queues=() count=0
while read -r name cores memory disk gpus; do
    place=/var/lib/nova/hosts/$name
    mkdir -p "$place"
    printf '[DEFAULT]\nhost = %s\nstate_path = %s\n' "$name" "$place" >"$place/host.conf"
    LAB_CORES=$cores LAB_MEMORY=$memory LAB_DISK=$disk LAB_GPUS=$gpus nova-compute --config-file /etc/nova/nova.conf \
        --config-file "$place/host.conf" >"$LOG/nova-compute-$name.log" 2>&1 &
    queues+=("compute.$name")
    count=$((count + 1))
done </lab/hosts
web $((P + 1))/
web $((P + 2))/
web $((P + 4))/
python3 /recipe/queues.py $((P + 10)) 120 scheduler "${queues[@]}"
say "hypervisors listen"
for _ in $(seq 600); do
    mapped=$(mariadb -N -e 'select count(*) from nova_api.host_mappings')
    filled=$(mariadb -N -e 'select count(distinct resource_provider_id) from placement.inventories')
    [ "$mapped" = $count ] && [ "$filled" = $count ] && break
    sleep 0.2
done
[ "$mapped" = $count ] && [ "$filled" = $count ]
say ready
