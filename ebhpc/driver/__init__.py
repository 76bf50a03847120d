"""The driver: the process that moves accepted sessions through their phases.

- ``Driver`` is its loop; ``Driver.run`` drives until it is told to stop.
- ``MACHINE`` is the phase machine as a table of ``Rule`` by ``Step``; ``next_step`` says what to do with a session.
- ``DriverRunning``: the driver's name belongs to another that lives; ``NameTaken``: another has taken it.
"""

from ebhpc.driver.loop import Driver
from ebhpc.driver.phases import MACHINE, Rule, Step, next_step
from ebhpc.driver.registration import DriverRunning, NameTaken, register

__all__ = ["MACHINE", "Driver", "DriverRunning", "NameTaken", "Rule", "Step", "next_step", "register"]
