"""What the lab's cloud looks like: its hypervisors, and the configuration of OpenStack's services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HOST_NAME = "stacklab"
SERVICE = "ebhpc"
"""The account on the login host, in whose home the cloud's credentials lie."""

PORTS = 30
"""So many neighbouring ports a cloud takes."""


@dataclass(frozen=True)
class Host:
    """One fake hypervisor: ``memory`` in MiB, ``disk`` in GiB, ``gpus`` of the resource class CUSTOM_GPU."""

    name: str
    cores: int
    memory: int
    disk: int
    gpus: int = 0


HOSTS = (
    Host("node1", cores=8, memory=16384, disk=100),
    Host("node2", cores=8, memory=16384, disk=100),
    Host("gpu1", cores=8, memory=32768, disk=100, gpus=2),
)


@dataclass(frozen=True)
class Ports:
    """Who listens where on loopback; ``first`` is the first of `PORTS` ports."""

    first: int

    @property
    def keystone(self) -> int:
        """Return the port of the identity service."""
        return self.first

    @property
    def nova(self) -> int:
        """Return the port of the compute service."""
        return self.first + 1

    @property
    def glance(self) -> int:
        """Return the port of the image service."""
        return self.first + 2

    @property
    def placement(self) -> int:
        """Return the port of the placement service."""
        return self.first + 3

    @property
    def neutron(self) -> int:
        """Return the port of the network service."""
        return self.first + 4

    @property
    def blazar(self) -> int:
        """Return the port of the lease service, where it runs."""
        return self.first + 5

    @property
    def cinder(self) -> int:
        """Return the port of the block storage service, where it runs."""
        return self.first + 14

    @property
    def ssh(self) -> int:
        """Return the port of the login host."""
        return self.first + 6

    @property
    def login(self) -> int:
        """Return the port of the login host on the guests' network."""
        return self.first + 7

    @property
    def brief(self) -> int:
        """Return the port of a second identity service, whose tokens live briefly."""
        return self.first + 8

    @property
    def shut(self) -> int:
        """Return the port of a login host that forwards nothing."""
        return self.first + 9

    @property
    def forwarded(self) -> tuple[int, int]:
        """Return the first and the last of the ports from which a broker leads to its guests."""
        return self.first + 20, self.first + 29

    @property
    def rabbit(self) -> int:
        """Return the port of the message broker; the two after it are Erlang's."""
        return self.first + 10

    @property
    def memcached(self) -> int:
        """Return the port of the cache that keystone's processes share."""
        return self.first + 13


Sections = dict[str, dict[str, Any]]


def _database(name: str) -> str:
    return f"mysql+pymysql://root@localhost/{name}?unix_socket=/run/mysqld/mysqld.sock"


def configuration(ports: Ports) -> dict[str, str]:
    """Return the files that the services read, by path."""
    identity = f"http://127.0.0.1:{ports.keystone}/v3"
    messages = f"rabbit://guest:guest@127.0.0.1:{ports.rabbit}/"

    def account(name: str) -> dict[str, Any]:
        return {
            "www_authenticate_uri": identity,
            "auth_type": "password",
            "auth_url": identity,
            "username": name,
            "password": "lab",
            "project_name": "service",
            "user_domain_name": "Default",
            "project_domain_name": "Default",
            "region_name": "RegionOne",
        }

    files: dict[str, Sections] = {
        "/etc/keystone/keystone.conf": {
            "DEFAULT": {"use_stderr": True},
            "database": {"connection": _database("keystone")},
            "token": {"provider": "fernet", "expiration": 86400},
            "identity": {"password_hash_rounds": 4},
            "fernet_tokens": {"key_repository": "/etc/keystone/fernet-keys"},
            "credential": {"key_repository": "/etc/keystone/credential-keys"},
            # Two processes with caches of their own would tell of endpoints that are no more
            "cache": {
                "enabled": True,
                "backend": "dogpile.cache.pymemcache",
                "memcache_servers": f"127.0.0.1:{ports.memcached}",
            },
        },
        "/etc/placement/placement.conf": {
            "DEFAULT": {"use_stderr": True},
            "placement_database": {"connection": _database("placement")},
            "keystone_authtoken": account("placement"),
            "api": {"auth_strategy": "keystone"},
            "oslo_policy": {"policy_file": "/etc/placement/lab-policy.yaml"},
        },
        "/etc/glance/glance-api.conf": {
            "DEFAULT": {
                "bind_host": "127.0.0.1",
                "bind_port": ports.glance,
                "workers": 1,
                "use_stderr": True,
                "enabled_backends": "fs:file",
            },
            "database": {"connection": _database("glance")},
            "keystone_authtoken": account("glance"),
            "paste_deploy": {"flavor": "keystone"},
            "glance_store": {"default_backend": "fs"},
            "fs": {"filesystem_store_datadir": "/var/lib/glance/images"},
        },
        "/etc/neutron/neutron.conf": {
            "DEFAULT": {
                "use_stderr": True,
                "bind_host": "127.0.0.1",
                "bind_port": ports.neutron,
                "state_path": "/var/lib/neutron",
                "core_plugin": "ml2",
                "service_plugins": "router",
                "transport_url": messages,
                "api_workers": 1,
                "rpc_workers": 1,
                "notify_nova_on_port_status_changes": False,
                "notify_nova_on_port_data_changes": False,
                "dhcp_agent_notification": False,
            },
            "database": {"connection": _database("neutron")},
            "keystone_authtoken": account("neutron"),
            "nova": account("nova"),
            "oslo_concurrency": {"lock_path": "/run/lock/neutron"},
        },
        "/etc/neutron/plugins/ml2/ml2_conf.ini": {
            "ml2": {
                "type_drivers": "local",
                "tenant_network_types": "local",
                # No agent binds ports here; without one a server waits 40 s and fails
                "mechanism_drivers": "lab",
                "extension_drivers": "",
            },
        },
        "/etc/nova/nova.conf": {
            "DEFAULT": {
                "use_stderr": True,
                "state_path": "/var/lib/nova",
                "my_ip": "127.0.0.1",
                "transport_url": messages,
                "compute_driver": "labdriver.LabDriver",
                "rpc_response_timeout": 30,
                "service_down_time": 30,
                "report_interval": 5,
                "sync_power_state_interval": 10,
                # Else the discovery of hosts waits up to a minute
                "periodic_fuzzy_delay": 0,
                "cpu_allocation_ratio": 1.0,
                "ram_allocation_ratio": 1.0,
                "disk_allocation_ratio": 1.0,
                "reserved_host_memory_mb": 0,
                "instance_usage_audit": False,
            },
            "api_database": {"connection": _database("nova_api")},
            "database": {"connection": _database("nova")},
            "api": {"auth_strategy": "keystone"},
            "keystone_authtoken": account("nova"),
            "service_user": {**account("nova"), "send_service_user_token": True},
            "placement": account("placement"),
            "neutron": account("neutron"),
            "glance": account("glance"),
            "cinder": {
                **account("nova"),
                "catalog_info": "block-storage:cinder:publicURL",
                "os_region_name": "RegionOne",
            },
            "oslo_concurrency": {"lock_path": "/run/lock/nova"},
            "oslo_policy": {"policy_file": "/etc/nova/lab-policy.yaml"},
            "scheduler": {"workers": 1, "discover_hosts_in_cells_interval": 5},
            # Nova's usual ones, and the one that keeps servers without a lease from hypervisors that are Blazar's
            "filter_scheduler": {
                "available_filters": [
                    "nova.scheduler.filters.all_filters",
                    "blazarnova.scheduler.filters.blazar_filter.BlazarFilter",
                ],
                "enabled_filters": "ComputeFilter,ComputeCapabilitiesFilter,ImagePropertiesFilter,"
                "ServerGroupAntiAffinityFilter,ServerGroupAffinityFilter,SameHostFilter,DifferentHostFilter,"
                "AggregateInstanceExtraSpecsFilter,BlazarFilter",
            },
            "conductor": {"workers": 1},
            "vnc": {"enabled": False},
        },
        "/etc/cinder/cinder.conf": {
            "DEFAULT": {
                "use_stderr": True,
                "my_ip": "127.0.0.1",
                "state_path": "/var/lib/cinder",
                "transport_url": messages,
                "auth_strategy": "keystone",
                "api_paste_config": "/etc/cinder/api-paste.ini",
                "enabled_backends": "lab",
                "default_volume_type": "__DEFAULT__",
                "report_interval": 5,
                "service_down_time": 30,
                "periodic_fuzzy_delay": 0,
            },
            "lab": {"volume_driver": "labvolumes.LabVolumeDriver", "volume_backend_name": "lab"},
            "database": {"connection": _database("cinder")},
            "keystone_authtoken": {
                **account("cinder"),
                "service_token_roles": "service",
                "service_token_roles_required": True,
            },
            "oslo_concurrency": {"lock_path": "/run/lock/cinder"},
        },
        "/etc/blazar/blazar.conf": {
            "DEFAULT": {
                "use_stderr": True,
                "host": "127.0.0.1",
                "port": ports.blazar,
                "os_auth_protocol": "http",
                "os_auth_host": "127.0.0.1",
                "os_auth_port": ports.keystone,
                "os_auth_prefix": "",
                "os_auth_version": "v3",
                "os_admin_username": "blazar",
                "os_admin_password": "lab",
                "os_admin_project_name": "service",
                "os_admin_user_domain_name": "Default",
                "os_admin_project_domain_name": "Default",
                "os_region_name": "RegionOne",
                "identity_service": "identity",
                "transport_url": messages,
            },
            "database": {"connection": _database("blazar")},
            "keystone_authtoken": account("blazar"),
            "manager": {"plugins": "physical.host.plugin,virtual.instance.plugin"},
            "nova": {"aggregate_freepool_name": "freepool", "nova_client_timeout": 30},
            "physical:host": {"blazar_az_prefix": "blazar_", "enable_notification_monitor": False},
            "virtual:instance": {"enable_notification_monitor": False},
            "oslo_policy": {"enforce_scope": False},
        },
        "/etc/mysql/mariadb.conf.d/99-lab.cnf": {
            "mysqld": {
                "skip-networking": None,
                "innodb_flush_log_at_trx_commit": 0,
                "innodb_doublewrite": 0,
                "innodb_buffer_pool_size": "128M",
                "max_connections": 500,
                "skip-log-bin": None,
                "performance_schema": "off",
            },
        },
    }
    return {
        **{path: _ini(sections) for path, sections in files.items()},
        "/etc/rabbitmq/rabbitmq.conf": f"listeners.tcp.1 = 127.0.0.1:{ports.rabbit}\nloopback_users.guest = true\n",
        "/etc/rabbitmq/enabled_plugins": "[].\n",
        "/etc/nova/lab-policy.yaml": _policy(
            "os_compute_api:os-hypervisors:list",
            "os_compute_api:os-hypervisors:list-detail",
            "os_compute_api:os-services:list",
            "compute:servers:create:requested_destination",
            admin="rule:context_is_admin",
        ),
        "/etc/placement/lab-policy.yaml": _policy(
            "placement:allocation_candidates:list",
            "placement:resource_providers:list",
            "placement:resource_providers:inventories:list",
            "placement:resource_providers:usages",
            "placement:resource_providers:traits:list",
            admin="rule:admin_or_service_api",
        ),
        "/lab/clouds.yaml": _admin(identity),
        "/lab/ports": f"P={ports.first}\n",
    }


def _ini(sections: Sections) -> str:
    lines = []
    for name, values in sections.items():
        lines.append(f"[{name}]")
        for key, value in values.items():
            several = value if isinstance(value, list) else [value]
            lines += [key if one is None else f"{key} = {one}" for one in several]
    return "\n".join([*lines, ""])


def _policy(*rules: str, admin: str) -> str:
    """Let the role ``planner`` do what only administrators may: read how large hypervisors are, and name one."""
    return "".join(f'"{rule}": "{admin} or role:planner"\n' for rule in rules)


def _admin(identity: str) -> str:
    return (
        "clouds:\n  admin:\n    region_name: RegionOne\n    auth:\n"
        f"      auth_url: {identity}\n      username: admin\n      password: lab\n      project_name: admin\n"
        "      user_domain_name: Default\n      project_domain_name: Default\n"
    )
