"""Records there and back through confluent-kafka. usage: records.py BOOTSTRAP ACT TOPIC [ARG...]"""

import sys
import time

from confluent_kafka import OFFSET_BEGINNING, TIMESTAMP_LOG_APPEND_TIME, Consumer, Producer, TopicPartition

bootstrap, act, topic, args = sys.argv[1], sys.argv[2], sys.argv[3], sys.argv[4:]


def producer(**more):
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **{k.replace("_", "."): v for k, v in more.items()}})


def consumer(**more):
    settings = {"bootstrap.servers": bootstrap, "group.id": "none", "enable.auto.commit": False, "auto.offset.reset": "earliest"}
    settings.update({k.replace("_", "."): v for k, v in more.items()})
    return Consumer(settings)


def read(count, partitions):
    """`count` messages from the beginning of the partitions."""
    c = consumer()
    c.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in partitions])
    got = []
    deadline = time.time() + 40
    while len(got) < count:
        assert time.time() < deadline, f"only {len(got)} of {count}"
        for message in c.consume(1000, 0.5):
            assert not message.error(), message.error()
            got.append(message)
    assert not c.consume(1, 0.3), "more than expected"
    c.close()
    return got


def codecs():
    sent = {}
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"]:
        p = producer(compression_codec=codec, acks="all")
        for i in range(500):
            key = f"{codec}-{i}"
            value = key.encode() * 20 if i % 7 else None
            headers = [("n", str(i)), ("dup", b"1"), ("dup", b"2"), ("nil", None), ("dup", b"3")]
            p.produce(topic, key=key, value=value, headers=headers, timestamp=1_700_000_000_000 + i)
            sent[key.encode()] = (value, i)
        assert p.flush(30) == 0
    got = read(2500, range(3))
    assert len({m.key() for m in got}) == 2500
    for m in got:
        value, i = sent[m.key()]
        assert m.value() == value, m.key()
        want = [("n", str(i).encode()), ("dup", b"1"), ("dup", b"2"), ("nil", None), ("dup", b"3")]
        assert m.headers() == want, m.headers()
        assert m.timestamp()[1] == 1_700_000_000_000 + i, m.timestamp()
    # One key always goes to one partition.
    print("codecs ok: none gzip snappy lz4 zstd")


def idempotent(count):
    count = int(count)
    p = producer(enable_idempotence=True, batch_num_messages=50)
    for i in range(count):
        while True:
            try:
                p.produce(topic, value=str(i), partition=i % 4)
                break
            except BufferError:
                p.poll(0.05)
        p.poll(0)
    assert p.flush(60) == 0
    last = {}
    for m in read(count, range(4)):
        value = int(m.value())
        assert value % 4 == m.partition()
        assert value == last.get(m.partition(), value % 4 - 4) + 4, (value, last)
        assert m.offset() == value // 4, "no gaps"
        last[m.partition()] = value
    print("idempotent ok:", count)


def seek():
    p = producer(acks="all")
    for i in range(100):
        p.produce(topic, value=str(i), partition=0, timestamp=1_700_000_000_000 + i * 1000)
    assert p.flush(30) == 0
    c = consumer()
    assert c.get_watermark_offsets(TopicPartition(topic, 0), timeout=20) == (0, 100)
    at = lambda ms: c.offsets_for_times([TopicPartition(topic, 0, ms)], timeout=20)[0].offset
    assert at(1_700_000_000_000 + 41_500) == 42
    assert at(0) == 0
    assert at(1_800_000_000_000) == -1
    c.assign([TopicPartition(topic, 0, 90)])
    assert c.consume(1, 20)[0].value() == b"90"
    c.seek(TopicPartition(topic, 0, 10))
    assert c.consume(1, 20)[0].value() == b"10"
    # Past the end: auto.offset.reset takes over.
    c.assign([TopicPartition(topic, 0, 5000)])
    assert c.consume(1, 20)[0].value() == b"0"
    c.close()
    print("seek ok")


def static(group):
    """Two static members; one goes away without leaving and comes back: nothing is reassigned."""
    moves = []

    def member(instance):
        c = consumer(group_id=group, group_instance_id=instance, session_timeout_ms=30000, heartbeat_interval_ms=500)
        note = lambda what: lambda _, parts: moves.append((instance, what, sorted(p.partition for p in parts)))
        c.subscribe([topic], on_assign=note("assigned"), on_revoke=note("revoked"))
        return c

    def until(what, condition, *members):
        deadline = time.time() + 40
        while not condition():
            assert time.time() < deadline, (what, moves)
            for m in members:
                m.poll(0.1)

    a, b = member("a"), member("b")
    each = lambda: len(a.assignment()) == 1 and len(b.assignment()) == 1
    until("one partition each", each, a, b)
    before = b.assignment()[0].partition
    del moves[:]
    # A static member's close sends no leave request.
    b.close()
    until("some heartbeats", lambda t=time.time(): time.time() - t > 2, a)
    b = member("b")
    until("b is back", lambda: len(b.assignment()) == 1, a, b)
    assert b.assignment()[0].partition == before
    assert [m for m in moves if m[0] == "a"] == [], moves
    a.close()
    b.close()
    print("static ok")


def stamps():
    for m in read(1, [0]):
        kind = "log-append" if m.timestamp()[0] == TIMESTAMP_LOG_APPEND_TIME else "created"
        print(kind, m.value().decode())


def trickle(count):
    """Writes records one by one, idempotently, saying how many are acknowledged."""
    p = producer(enable_idempotence=True, reconnect_backoff_max_ms=200, message_timeout_ms=60000)
    acked = 0

    def done(error, _):
        nonlocal acked
        assert error is None, error
        acked += 1
        if acked % 100 == 0:
            print("acked", acked)

    for i in range(int(count)):
        p.produce(topic, value=f"trickle-{i}", on_delivery=done)
        p.poll(0.005)
    assert p.flush(60) == 0


{"codecs": codecs, "idempotent": idempotent, "seek": seek, "static": static, "stamps": stamps, "trickle": trickle}[act](*args)
