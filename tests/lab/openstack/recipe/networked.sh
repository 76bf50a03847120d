#!/bin/bash
# networked.sh NAME ADDRESS WORDS...: runs WORDS, a guest, on a network of its own with its fixed address, which the
# login host's network (/run/netns/login, of login-network.sh) reaches and nobody else does. The ports in /run/network,
# of the host's loopback, are on the guest's.
set -eu
space=g-${1:0:8} address=$2
shift 2
ip netns add "$space"
ip -n login link add "$space" type veth peer name eth0 netns "$space"
ip -n login link set "$space" master guests up
ip -n "$space" addr add "$address/16" dev eth0
ip -n "$space" link set eth0 up
ip -n "$space" link set lo up
# shellcheck disable=SC2046
python3 /recipe/relay.py "/run/netns/$space" /proc/1/ns/net $(cat /run/network) &
nsenter --net="/run/netns/$space" "$@"
