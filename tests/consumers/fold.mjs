// A consumer as a team would write it: the last state of each invoice, by its key, and what it adds up to.
//
//     node fold.mjs amqp://user:password@host/vhost QUEUE
//
// Takes what the queue holds, and prints one line of JSON. Money is counted in cents: a number of JavaScript's has no exact tenths.

import { createRequire } from "node:module";
const { connect } = createRequire(process.env.NODE_MODULES + "/")("amqplib");

const [url, queue] = process.argv.slice(2);
const connection = await connect(url, { noDelay: true });
const channel = await connection.createChannel();
const invoices = new Map();
for (let message; (message = await channel.get(queue)); channel.ack(message)) {
  const event = JSON.parse(message.content.toString());
  const key = JSON.stringify(event.key);
  if (event.op === "delete") invoices.delete(key);
  else invoices.set(key, event.after);
}
await channel.close();
await connection.close();

const cents = (text) => BigInt(text.replace(".", ""));
const money = (cents) => `${cents / 100n}.${String(cents % 100n).padStart(2, "0")}`;
const all = [...invoices.values()];
const lines = all.flatMap((invoice) => invoice.lines);
const sum = (amounts) => money(amounts.reduce((a, b) => a + b, 0n));
console.log(
  JSON.stringify({
    invoices: all.length,
    total: sum(all.map((invoice) => cents(invoice.total))),
    lines: lines.length,
    lines_total: sum(lines.map((line) => cents(line.unit_price) * BigInt(line.quantity))),
    named: all.filter((invoice) => invoice.customer.last_name).length,
  }),
);
