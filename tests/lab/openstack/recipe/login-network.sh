#!/bin/bash
# login-network.sh SSH-PORT: a login host on a network of its own, the only one from which guests are reached; their
# fixed addresses are in 10.77.0.0/16. The APIs are on its loopback; its sshd's port is on the host's.
set -eu
. /recipe/lib.sh
ip netns delete login 2>/dev/null || true
ip netns add login
ip -n login link set lo up
ip -n login link add guests type bridge
ip -n login addr add 10.77.255.254/16 dev guests
ip -n login link set guests up
python3 /recipe/relay.py /run/netns/login /proc/1/ns/net "$P" $((P + 1)) $((P + 2)) $((P + 3)) $((P + 4)) &
sed "s/^Port .*/Port $1/" /lab/sshd_config >/lab/sshd_network_config
nsenter --net=/run/netns/login /usr/sbin/sshd -D -e -f /lab/sshd_network_config &
for _ in $(seq 300); do
    (nsenter --net=/run/netns/login bash -c "exec 3<>/dev/tcp/127.0.0.1/$1") 2>/dev/null && break
    sleep 0.1
done
exec python3 /recipe/relay.py /proc/1/ns/net /run/netns/login "$1"
