"""A fake hypervisor of any size for nova, whose guests run their user data (guest.sh).

The packaged fake driver draws another number for its node with each process, and is refused at the second start.
Metadata of a server that it heeds: lab_spawn_seconds (a slow start), lab_spawn_fails (one that fails), lab_idle (a
guest that does nothing: hundreds fit).
"""

import base64
import os
import signal
import subprocess
import threading
import time
import uuid

from nova import exception
from nova.compute import power_state
from nova.virt import event, fake, hardware

GUESTS = "/run/guests"


class LabDriver(fake.FakeDriver):
    vcpus = int(os.environ.get("LAB_CORES", 8))
    memory_mb = int(os.environ.get("LAB_MEMORY", 16384))
    local_gb = int(os.environ.get("LAB_DISK", 100))

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.guests = {}

    def init_host(self, host):
        super().init_host(host)
        from nova.virt import node

        if node.read_local_node_uuid() is None:
            node.write_local_node_uuid(self._uuid(host))

    @staticmethod
    def _uuid(name):
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, name))

    def get_nodenames_by_uuid(self, refresh=False):
        return {self._uuid(name): name for name in self.get_available_nodes()}

    def get_available_resource(self, nodename):
        return {**super().get_available_resource(nodename), "uuid": self._uuid(nodename)}

    def update_provider_tree(self, provider_tree, nodename, allocations=None):
        super().update_provider_tree(provider_tree, nodename, allocations=allocations)
        gpus = int(os.environ.get("LAB_GPUS", 0))
        if gpus:
            inventory = dict(provider_tree.data(nodename).inventory)
            inventory["CUSTOM_GPU"] = {
                "total": gpus,
                "reserved": 0,
                "min_unit": 1,
                "max_unit": gpus,
                "step_size": 1,
                "allocation_ratio": 1.0,
            }
            provider_tree.update_inventory(nodename, inventory)

    def spawn(self, context, instance, *args, network_info=None, **kwargs):
        told = instance.metadata
        time.sleep(float(told.get("lab_spawn_seconds", 0)))
        if "lab_spawn_fails" in told:
            raise exception.InstanceDeployFailure(reason=told["lab_spawn_fails"])
        super().spawn(context, instance, *args, network_info=network_info, **kwargs)
        if instance.user_data and "lab_idle" not in told:
            disks = (kwargs.get("block_device_info") or {}).get("block_device_mapping") or ()
            volumes = [one["connection_info"]["data"] for one in disks]
            self._boot(instance, [one["address"] for vif in network_info or () for one in vif.fixed_ips()], volumes)

    def _boot(self, instance, addresses, volumes):
        place = f"{GUESTS}/{instance.uuid}"
        os.makedirs(f"{place}/run")
        with open(f"{place}/user-data", "wb") as file:
            file.write(base64.b64decode(instance.user_data))
        with open(f"{place}/volumes", "w", encoding="ascii") as file:
            file.writelines(f"{one['volume_id']} {one['path']}\n" for one in volumes)
        open(f"{place}/console.log", "wb").close()
        words = ["unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "/recipe/guest.sh", place]
        if addresses and os.path.exists("/run/network"):
            words = ["/recipe/networked.sh", instance.uuid, addresses[0], *words]
        with open(f"{place}/guest.log", "wb") as log:
            guest = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        self.guests[instance.uuid] = guest
        threading.Thread(target=self._watch, args=(instance.uuid, guest), daemon=True).start()

    def _watch(self, number, guest):
        while guest.poll() is None:
            time.sleep(0.2)
        if self.guests.get(number) is guest and number in self.instances:
            self.instances[number].state = power_state.SHUTDOWN
            self.emit_event(event.LifecycleEvent(number, event.EVENT_LIFECYCLE_STOPPED))

    def _end(self, instance):
        guest = self.guests.pop(instance.uuid, None)
        if guest is not None and guest.poll() is None:
            os.killpg(guest.pid, signal.SIGKILL)
            guest.wait()

    def get_info(self, instance, use_cache=True):
        if instance.uuid not in self.instances:
            raise exception.InstanceNotFound(instance_id=instance.uuid)
        return hardware.InstanceInfo(state=self.instances[instance.uuid].state)

    def power_off(self, instance, *args, **kwargs):
        self._end(instance)
        super().power_off(instance, *args, **kwargs)

    def destroy(self, context, instance, *args, **kwargs):
        self._end(instance)
        super().destroy(context, instance, *args, **kwargs)

    def get_console_output(self, context, instance):
        try:
            with open(f"{GUESTS}/{instance.uuid}/console.log", "rb") as file:
                return file.read()[-102400:]  # as much as libvirt's driver returns
        except FileNotFoundError:
            return b""
