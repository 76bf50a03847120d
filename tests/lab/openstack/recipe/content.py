"""What the lab's cloud has in it from the start: content.py services|content, as its administrator."""

import json
import os
import pathlib
import sys

import openstack

FIRST = int(pathlib.Path("/lab/ports").read_text().strip().partition("=")[2])
SERVICES = {"nova": ("compute", 1, "/v2.1"), "glance": ("image", 2, ""), "placement": ("placement", 3, "")}
SERVICES |= {"neutron": ("network", 4, ""), "blazar": ("reservation", 5, "/v1")}
SERVICES["cinder"] = ("block-storage", 14, "/v3")
"""Names, kinds, and where they listen: how far from the first port, and the path. Cinder and Blazar are not started
with the others."""

FLAVORS = {
    "small": (1, 1024, 10, {}),
    "medium": (2, 4096, 20, {}),
    "large": (4, 8192, 40, {}),
    "gpu": (4, 8192, 40, {"resources:CUSTOM_GPU": "1"}),
    # No hypervisor has room for it
    "huge": (16, 65536, 40, {}),
}


def services(cloud):
    identity = cloud.identity
    admin, service = identity.find_role("admin"), identity.find_role("service")
    service = service or identity.create_role(name="service")
    project = identity.create_project(name="service", domain_id="default")
    for name, (kind, offset, path) in SERVICES.items():
        user = identity.create_user(name=name, password="lab", domain_id="default")
        for role in (admin, service):
            identity.assign_project_role_to_user(project, user, role)
        identity.put(f"/system/users/{user.id}/roles/{admin.id}")
        made = identity.create_service(name=name, type=kind)
        for interface in ("public", "internal", "admin"):
            url = f"http://127.0.0.1:{FIRST + offset}{path}"
            identity.create_endpoint(service_id=made.id, interface=interface, url=url, region_id="RegionOne")


def content(cloud):
    identity = cloud.identity
    project = identity.create_project(name="ebhpc", domain_id="default")
    user = identity.create_user(name="broker", password="lab", domain_id="default", default_project_id=project.id)
    member = identity.find_role("member")
    planner = identity.create_role(name="planner")
    for role in (member, planner):
        identity.assign_project_role_to_user(project, user, role)
    credentials(user, {"planner": ("member", "planner"), "member": ("member",)})
    for name, (cores, memory, disk, more) in FLAVORS.items():
        made = cloud.compute.create_flavor(name=name, vcpus=cores, ram=memory, disk=disk)
        if more:
            cloud.compute.create_flavor_extra_specs(made, more)
    cloud.image.create_image(
        name="debian", disk_format="raw", container_format="bare", visibility="public", data=bytes(1 << 20)
    )
    network = cloud.network
    public = network.create_network(name="public", is_router_external=True)
    network.create_subnet(name="public", network_id=public.id, cidr="198.51.100.0/24", ip_version=4, enable_dhcp=False)
    inner = network.create_network(name="lab", project_id=project.id)
    subnet = network.create_subnet(
        name="lab", network_id=inner.id, cidr="10.77.0.0/16", ip_version=4, project_id=project.id
    )
    router = network.create_router(name="lab", project_id=project.id, external_gateway_info={"network_id": public.id})
    network.add_interface_to_router(router, subnet_id=subnet.id)


def credentials(user, wanted):
    """Make the application credentials of the account on the login host, and its clouds.yaml."""
    address = f"http://127.0.0.1:{FIRST}/v3"
    own = openstack.connect(
        load_yaml_config=False,
        load_envvars=False,
        auth_url=address,
        username="broker",
        password="lab",
        project_name="ebhpc",
        user_domain_name="Default",
        project_domain_name="Default",
        region_name="RegionOne",
    )
    clouds = {}
    for name, roles in wanted.items():
        made = own.identity.create_application_credential(
            user, name, roles=[{"name": role} for role in roles], secret=os.urandom(24).hex()
        )
        clouds[name] = {
            "region_name": "RegionOne",
            "auth_type": "v3applicationcredential",
            "auth": {
                "auth_url": "@IDENTITY@",
                "application_credential_id": made.id,
                "application_credential_secret": made.secret,
            },
        }
    # JSON is YAML
    with open("/lab/broker-clouds.yaml", "w") as file:
        json.dump({"clouds": clouds}, file)


{"services": services, "content": content}[sys.argv[1]](openstack.connect(cloud="admin"))
