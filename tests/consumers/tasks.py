"""A Celery worker whose task is called with the rows that come.

    tasks.py amqp://user:password@host/vhost QUEUE COUNT

Ends after so many calls, and prints what it was called with.
"""

import json
import os
import sys

from celery import Celery
from kombu import Queue

url, queue, count = sys.argv[1:]
app = Celery(broker=url)
app.conf.task_queues = [Queue(queue, no_declare=True)]
app.conf.task_ignore_result = True
app.conf.worker_redirect_stdouts = False
calls = []


@app.task(name="crm.customer_changed")
def customer_changed(row, op):
    calls.append([op, row])
    if len(calls) == int(count):
        print(json.dumps(calls), flush=True)
        os._exit(0)


app.Worker(pool="solo", loglevel="error", without_gossip=True, without_mingle=True, quiet=True).start()
