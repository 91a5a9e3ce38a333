"""A consumer as a team would write it: the last state of each invoice, by its key, and what it adds up to.

    fold.py amqp://user:password@host/vhost QUEUE

Takes what the queue holds, and prints one line of JSON.
"""

import json
import sys
from decimal import Decimal

import pika

url, queue = sys.argv[1:]
channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
invoices = {}
while True:
    delivery, _, body = channel.basic_get(queue)
    if delivery is None:
        break
    event = json.loads(body)
    key = json.dumps(event["key"])
    if event["op"] == "delete":
        invoices.pop(key, None)
    else:
        invoices[key] = event["after"]
    channel.basic_ack(delivery.delivery_tag)

lines = [line for invoice in invoices.values() for line in invoice["lines"]]
print(json.dumps({
    "invoices": len(invoices),
    "total": str(sum(Decimal(invoice["total"]) for invoice in invoices.values())),
    "lines": len(lines),
    "lines_total": str(sum(Decimal(line["unit_price"]) * line["quantity"] for line in lines)),
    "named": sum(1 for invoice in invoices.values() if invoice["customer"]["last_name"]),
}))
