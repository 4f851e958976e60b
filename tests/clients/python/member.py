"""A group member that says what happens to it, until SIGTERM.

Prints "assigned P...", "revoked P...", "lost P...", after each of them "holds P..." with all it has, and "got VALUE".
Partitions are printed as topic:number. usage: member.py BOOTSTRAP --group G --topic T [--strategy S] [--client C] [--reset R]
"""

import argparse
import signal
import sys

from confluent_kafka import Consumer

parser = argparse.ArgumentParser()
parser.add_argument("bootstrap")
parser.add_argument("--group", required=True)
parser.add_argument("--topic", required=True)
parser.add_argument("--strategy", default="range")
parser.add_argument("--client", default="member")
parser.add_argument("--reset", default="earliest")
options = parser.parse_args()

going = True


def stop(*_):
    global going
    going = False


signal.signal(signal.SIGTERM, stop)
held = set()
cooperative = options.strategy == "cooperative-sticky"


def names(partitions):
    return [f"{p.topic}:{p.partition}" for p in partitions]


def tell(what, partitions):
    # One write for both lines: whoever reads the output sees them together.
    sys.stdout.write(" ".join([what, *sorted(names(partitions))]) + "\n" + " ".join(["holds", *sorted(held)]) + "\n")
    sys.stdout.flush()


def on_assign(consumer, partitions):
    held.update(names(partitions))
    tell("assigned", partitions)
    if cooperative:
        consumer.incremental_assign(partitions)
    else:
        consumer.assign(partitions)


def on_revoke(consumer, partitions):
    held.difference_update(names(partitions))
    tell("revoked", partitions)
    if cooperative:
        consumer.incremental_unassign(partitions)
    else:
        consumer.unassign()


def on_lost(consumer, partitions):
    held.difference_update(names(partitions))
    tell("lost", partitions)
    if cooperative:
        consumer.incremental_unassign(partitions)
    else:
        consumer.unassign()


consumer = Consumer(
    {
        "bootstrap.servers": options.bootstrap,
        "group.id": options.group,
        "client.id": options.client,
        "partition.assignment.strategy": options.strategy,
        "auto.offset.reset": options.reset,
        "auto.commit.interval.ms": 200,
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 500,
        "topic.metadata.refresh.interval.ms": 1000,
        "reconnect.backoff.max.ms": 500,
    }
)
consumer.subscribe([options.topic], on_assign=on_assign, on_revoke=on_revoke, on_lost=on_lost)
while going:
    message = consumer.poll(0.1)
    if message is None:
        continue
    if message.error():
        print("error", message.error(), file=sys.stderr)
        continue
    print("got", (message.value() or b"").decode(errors="replace"))
consumer.close()
