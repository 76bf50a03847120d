"""Real systemd as PID 1 for tests: `machine` boots a Debian of its own and takes all of it away.

The root, cached in the lab's cache, carries systemd 257, Python 3.13 and the wheels that ebhpc depends on, so that a
package of the checkout can be built and installed in it. What is written goes into memory, and ends with the machine.
"""

from tests.lab.systemd.machine import CHECKOUT, Machine, machine
from tests.lab.systemd.roots import missing, root

__all__ = ["machine", "Machine", "CHECKOUT", "missing", "root"]
