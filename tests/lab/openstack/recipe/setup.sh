#!/bin/bash
# Inside the root, once: databases, services, and what the cloud has in it.
set -euo pipefail
. /recipe/lib.sh
install -d $LOG
install -d -o mysql -g mysql /var/lib/mysql /run/mysqld
mariadb-install-db --user=mysql --skip-test-db --auth-root-authentication-method=socket >$LOG/install-db.log 2>&1
cache
database
for name in keystone placement glance nova_api nova nova_cell0 neutron cinder blazar; do
    echo "create database $name character set utf8mb3;"
done | mariadb
cd /tmp
keystone_database() {
    keystone-manage db_sync
    install -d -o keystone -g keystone -m 700 /etc/keystone/fernet-keys /etc/keystone/credential-keys
    keystone-manage fernet_setup --keystone-user root --keystone-group root
    keystone-manage credential_setup --keystone-user root --keystone-group root
    url=http://127.0.0.1:$P/v3
    keystone-manage bootstrap --bootstrap-password lab --bootstrap-region-id RegionOne --bootstrap-public-url $url \
        --bootstrap-internal-url $url --bootstrap-admin-url $url
}
nova_databases() {
    nova-manage api_db sync
    nova-manage cell_v2 map_cell0
    nova-manage db sync
    nova-manage cell_v2 create_cell --name=cell1
}
keystone_database >$LOG/sync-keystone.log 2>&1 & first=$!
(placement-manage db sync; glance-manage db_sync) >$LOG/sync-placement.log 2>&1 & second=$!
nova_databases >$LOG/sync-nova.log 2>&1 & third=$!
neutron-db-manage --config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini \
    upgrade head >$LOG/sync-neutron.log 2>&1 & fourth=$!
(cinder-manage db sync; blazar-db-manage --config-file /etc/blazar/blazar.conf upgrade head) \
    >$LOG/sync-others.log 2>&1 & fifth=$!
for one in $first $second $third $fourth $fifth; do wait "$one"; done
install -d /run/lock/nova /run/lock/neutron
messages
identity
web "$P/v3"
python3 /recipe/content.py services
controllers
for one in 1 2 3 4; do web $((P + one))/; done
python3 /recipe/content.py content
mariadb-admin shutdown
sleep 1
rm -rf /var/lib/rabbitmq/mnesia
