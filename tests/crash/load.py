"""Load for the crash suite, through confluent-kafka; runs until SIGTERM. Topics are given as NAME:PARTITIONS,...

load.py BOOTSTRAP produce TOPICS FILE      idempotent, acks=all; FILE gets "topic partition offset n" per acknowledgement
load.py BOOTSTRAP consume TOPICS FILE GROUP  a member that commits; FILE gets "topic partition offset n" per record
load.py BOOTSTRAP read TOPICS FILE         everything from the beginning, once
load.py BOOTSTRAP committed TOPICS GROUP   prints what the group has committed
"""

import signal
import sys
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition

bootstrap, act = sys.argv[1], sys.argv[2]
topics = [(name, int(count)) for name, count in (t.split(":") for t in sys.argv[3].split(","))]
partitions = [(name, p) for name, count in topics for p in range(count)]
# A broker that comes back should be found at once.
common = {"bootstrap.servers": bootstrap, "reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "socket.timeout.ms": 10000}
going = True


def stop(*_):
    global going
    going = False


signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGINT, stop)


def produce(path):
    producer = Producer({**common, "enable.idempotence": True, "linger.ms": 2, "batch.num.messages": 100,
                         "message.timeout.ms": 120000, "retry.backoff.ms": 50, "retry.backoff.max.ms": 200,
                         "queue.buffering.max.messages": 2000})
    acked, failed = [], []

    def done(error, message):
        if error:
            failed.append(str(error))
        else:
            acked.append((message.topic(), message.partition(), message.offset(), message.key().decode()))

    n = told = 0
    while going:
        topic, partition = partitions[n % len(partitions)]
        try:
            producer.produce(topic, key=str(n), value=b"x" * (n % 300), partition=partition, on_delivery=done)
            n += 1
        except BufferError:
            producer.poll(0.01)
        producer.poll(0)
        if len(acked) >= told + 500:
            told = len(acked)
            print("acked", told, flush=True)
    left = producer.flush(100)
    with open(path, "w") as f:
        f.writelines(f"{t} {p} {o} {n}\n" for t, p, o, n in acked)
    print("sent", n, "acked", len(acked), "failed", len(failed), "left", left, *failed[:3], flush=True)


def consume(path, group):
    consumer = Consumer({**common, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False,
                         "session.timeout.ms": 6000, "heartbeat.interval.ms": 300})
    consumer.subscribe([t for t, _ in topics])
    position = {}
    idle = 0
    with open(path, "w") as f:
        # After the signal: until nothing more comes for two seconds.
        while going or idle < 20:
            messages = consumer.consume(2000, 0.1)
            idle = 0 if messages else idle + 1
            for m in messages:
                if m.error():
                    print("error", m.error(), file=sys.stderr)
                    continue
                f.write(f"{m.topic()} {m.partition()} {m.offset()} {m.key().decode()}\n")
                position[m.topic(), m.partition()] = m.offset() + 1
            if messages and position:
                wanted = [TopicPartition(t, p, o) for (t, p), o in position.items()]
                try:
                    consumer.commit(offsets=wanted, asynchronous=False)
                    # Only what was acknowledged is printed: the broker may not forget it.
                    line = " ".join(f"{p.topic}:{p.partition}:{p.offset}" for p in wanted)
                    print("committed", line, flush=True)
                except KafkaException as e:
                    print("commit", e, file=sys.stderr)
                    position.clear()
    consumer.close()
    print("done", flush=True)


def read(path):
    consumer = Consumer({**common, "group.id": "none", "enable.auto.commit": False})
    ends = {}
    for t, p in partitions:
        ends[t, p] = consumer.get_watermark_offsets(TopicPartition(t, p), timeout=30)[1]
    consumer.assign([TopicPartition(t, p, OFFSET_BEGINNING) for t, p in partitions])
    left = {k for k, end in ends.items() if end > 0}
    deadline = time.time() + 120
    with open(path, "w") as f:
        while left:
            assert time.time() < deadline, f"unread: {left}"
            for m in consumer.consume(5000, 0.2):
                assert not m.error(), m.error()
                f.write(f"{m.topic()} {m.partition()} {m.offset()} {m.key().decode()}\n")
                if m.offset() + 1 >= ends[m.topic(), m.partition()]:
                    left.discard((m.topic(), m.partition()))
    consumer.close()
    print("read", flush=True)


def committed(group):
    consumer = Consumer({**common, "group.id": group, "enable.auto.commit": False})
    found = consumer.committed([TopicPartition(t, p) for t, p in partitions], timeout=60)
    print("committed", " ".join(f"{p.topic}:{p.partition}:{p.offset}" for p in found))
    consumer.close()


{"produce": produce, "consume": consume, "read": read, "committed": committed}[act](*sys.argv[4:])
