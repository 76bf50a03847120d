# For the scripts of the lab's cloud: read, not run.
. /lab/ports
export OS_CLIENT_CONFIG_FILE=/lab/clouds.yaml OS_CLOUD=admin PYTHONWARNINGS=ignore LC_ALL=C.UTF-8 HOME=/root
export PATH=/usr/sbin:/usr/bin:/sbin:/bin
LOG=/var/log/lab
say() { echo "$(date +%s.%N | cut -c1-14) $*"; }

# port PORT: wait until somebody listens
port() {
    for _ in $(seq 900); do
        (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null && return
        sleep 0.1
    done
    say "nobody listens on $1"
    exit 1
}

# web PORT: wait until a web server answers without a failure of its own
web() {
    for _ in $(seq 900); do
        code=$(python3 /recipe/answers.py "$1") && return
        sleep 0.1
    done
    say "$1 answers ${code:-nothing}"
    exit 1
}

database() {
    install -d -o mysql -g mysql /run/mysqld
    mariadbd --user=mysql >$LOG/mariadb.log 2>&1 &
    for _ in $(seq 300); do
        mariadb -e 'select 1' >/dev/null 2>&1 && return
        sleep 0.1
    done
    say "mariadb does not answer"
    exit 1
}

# service NAME PORT FILE [PROCESSES]: a web application under uwsgi, whose answers need "Connection: close"
service() {
    uwsgi_python3 --master --need-app --procname-prefix "$1-" --http-socket "127.0.0.1:$2" --wsgi-file "$3" \
        --processes "${4:-2}" --threads 1 --enable-threads --lazy-apps --buffer-size 65535 --die-on-term \
        --add-header 'Connection: close' --disable-logging >"$LOG/$1.log" 2>&1 &
}

messages() {
    install -d -o rabbitmq -g rabbitmq /run/rabbitmq /var/lib/rabbitmq /var/log/rabbitmq
    su -s /bin/bash rabbitmq -c "HOSTNAME=localhost RABBITMQ_NODENAME=lab$P@localhost RABBITMQ_DIST_PORT=$((P + 11)) \
        ERL_EPMD_PORT=$((P + 12)) ERL_EPMD_ADDRESS=127.0.0.1 RABBITMQ_LOGS=- RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=\
'-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none' exec rabbitmq-server" >$LOG/rabbitmq.log 2>&1 &
}

# The ports of this start, in what keystone and nova have written down
addresses() {
    mariadb -e "update keystone.endpoint set url = regexp_replace(url, '127.0.0.1:[0-9]+', concat('127.0.0.1:', $P +
        case when service_id = (select id from keystone.service where type = 'compute') then 1
             when service_id = (select id from keystone.service where type = 'image') then 2
             when service_id = (select id from keystone.service where type = 'placement') then 3
             when service_id = (select id from keystone.service where type = 'network') then 4
             when service_id = (select id from keystone.service where type = 'reservation') then 5
             when service_id = (select id from keystone.service where type = 'block-storage') then 14 else 0 end));
        update nova_api.cell_mappings set transport_url = 'rabbit://guest:guest@127.0.0.1:$((P + 10))/' where name = 'cell1'"
}

cache() {
    memcached -u nobody -l 127.0.0.1 -p $((P + 13)) -m 64 >$LOG/memcached.log 2>&1 &
}

identity() {
    service keystone "$P" /usr/bin/keystone-wsgi-public 2
}

# Everything but keystone, conductor, scheduler and hypervisors
controllers() {
    service placement $((P + 3)) /usr/bin/placement-api 1
    glance-api >$LOG/glance-api.log 2>&1 &
    web "$P/v3"
    port $((P + 10))
    service nova-api $((P + 1)) /usr/bin/nova-api-wsgi 2
    neutron-server --config-file /etc/neutron/neutron.conf --config-file /etc/neutron/plugins/ml2/ml2_conf.ini \
        >$LOG/neutron.log 2>&1 &
}
