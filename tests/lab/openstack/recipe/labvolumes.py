"""A cinder driver whose volumes are sparse files, which a guest of the same machine has as loop devices.

Volumes whose metadata have lab_create_seconds take so long; those with lab_create_fails cannot be made.
"""

import os
import pathlib
import time

from cinder import exception, interface
from cinder.volume import driver

PLACE = pathlib.Path("/run/volumes")


@interface.volumedriver
class LabVolumeDriver(driver.VolumeDriver):
    VERSION = "1.0"

    def do_setup(self, context):
        PLACE.mkdir(exist_ok=True)

    def check_for_setup_error(self):
        pass

    def get_volume_stats(self, refresh=False):
        return {
            "volume_backend_name": "lab",
            "vendor_name": "lab",
            "driver_version": self.VERSION,
            "storage_protocol": "lab",
            "total_capacity_gb": 1000,
            "free_capacity_gb": 1000,
        }

    def create_volume(self, volume):
        told = volume.metadata
        time.sleep(float(told.get("lab_create_seconds", 0)))
        if "lab_create_fails" in told:
            raise exception.VolumeBackendAPIException(data=told["lab_create_fails"])
        with open(PLACE / volume.id, "wb") as file:
            file.truncate(volume.size << 30)

    def delete_volume(self, volume):
        (PLACE / volume.id).unlink(missing_ok=True)

    def initialize_connection(self, volume, connector):
        return {"driver_volume_type": "lab", "data": {"path": os.fspath(PLACE / volume.id), "volume_id": volume.id}}

    def terminate_connection(self, volume, connector, **kwargs):
        pass

    def ensure_export(self, context, volume):
        pass

    def create_export(self, context, volume, connector):
        pass

    def remove_export(self, context, volume):
        pass
