"""Wait until queues of the message broker have consumers: queues.py PORT SECONDS QUEUE...

A server launched before nova's conductor, scheduler and hypervisors listen is answered 202, and stays in BUILD for
ever.
"""

import contextlib
import sys
import time

import amqp

end, left = time.time() + float(sys.argv[2]), sys.argv[3:]
while left and time.time() < end:
    with contextlib.suppress(OSError):
        connection = amqp.Connection(f"127.0.0.1:{sys.argv[1]}", userid="guest", password="guest")
        connection.connect()
        for name in list(left):
            with contextlib.suppress(amqp.exceptions.NotFound):
                if connection.channel().queue_declare(name, passive=True).consumer_count:
                    left.remove(name)
        connection.close()
    time.sleep(0.2 if left else 0)
sys.exit(f"nobody listens on {' '.join(left)}" if left else 0)
