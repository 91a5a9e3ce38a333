"""A Celery worker whose task is called with the rows that come.

    tasks.py amqp://user:password@host/vhost QUEUE COUNT

Ends after so many calls, and prints what it was called with.
"""

import json
import sys
import threading

from celery import Celery
from celery.contrib.testing.worker import start_worker
from kombu import Queue

url, queue, count = sys.argv[1:]
app = Celery(broker=url)
app.conf.task_queues = [Queue(queue, no_declare=True)]
app.conf.task_ignore_result = True
calls = []
enough = threading.Event()


@app.task(name="crm.customer_changed")
def customer_changed(row, op):
    calls.append([op, row])
    if len(calls) == int(count):
        enough.set()


with start_worker(app, pool="solo", perform_ping_check=False, loglevel="error"):
    enough.wait(30)
print(json.dumps(calls))
