"""kafka-python: every codec, a group of two, administration. usage: kafka_python.py BOOTSTRAP TOPIC"""

import sys
import threading
import time

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.errors import TopicAlreadyExistsError

bootstrap, topic = sys.argv[1], sys.argv[2]
group = topic + "-g"

admin = KafkaAdminClient(bootstrap_servers=bootstrap)
admin.create_topics([NewTopic(name=topic, num_partitions=2, replication_factor=-1, topic_configs={"retention.ms": "7000000"})])
try:
    admin.create_topics([NewTopic(name=topic, num_partitions=2, replication_factor=-1)])
    raise AssertionError("created twice")
except TopicAlreadyExistsError:
    pass
assert topic in admin.list_topics()

sent = []
for codec in [None, "gzip", "snappy", "lz4", "zstd"]:
    producer = KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, acks="all", enable_idempotence=True, linger_ms=5)
    futures = []
    for i in range(200):
        value = f"{codec}-{i}".encode()
        futures.append(producer.send(topic, value=value, key=str(i % 10).encode(), headers=[("h", b"1"), ("h", b"2")]))
        sent.append(value)
    producer.flush(30)
    for future in futures:
        assert future.get(10).offset >= 0
    producer.close()


def consumer():
    return KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        metadata_max_age_ms=1000,
        heartbeat_interval_ms=500,
    )


# Two members, each in a thread of its own, as the client wants to be used.
settled = threading.Barrier(2)
got, problems = [], []


def member():
    try:
        mine = consumer()
        deadline = time.time() + 60
        while len(mine.assignment()) != 1:
            assert time.time() < deadline, mine.assignment()
            mine.poll(timeout_ms=500)
        settled.wait(60)
        # Records before the group was settled may have been read already.
        mine.seek_to_beginning()
        while len(got) < len(sent):
            assert time.time() < deadline, f"{len(got)} of {len(sent)}"
            for records in mine.poll(timeout_ms=500).values():
                got.extend(records)
        settled.wait(60)
        mine.commit()
        settled.wait(60)
        mine.close()
    except Exception as e:
        problems.append(repr(e))
        settled.abort()


threads = [threading.Thread(target=member) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert not problems, problems
assert sorted(r.value for r in got) == sorted(sent)
assert all(list(r.headers) == [("h", b"1"), ("h", b"2")] for r in got)
deadline = time.time() + 60

described = admin.describe_groups([group])
assert group in str(described), described
committed = admin.list_group_offsets([group]) if hasattr(admin, "list_group_offsets") else admin.list_consumer_group_offsets(group)
assert "OffsetAndMetadata" in str(committed) or "offset" in str(committed), committed
total = sum(KafkaConsumer(bootstrap_servers=bootstrap, group_id=group).committed(TopicPartition(topic, p)) for p in range(2))
assert total == len(sent), total

configs = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
assert "7000000" in str(configs), configs
admin.create_partitions({topic: NewPartitions(total_count=3)})
probe = KafkaConsumer(bootstrap_servers=bootstrap)
while len(probe.partitions_for_topic(topic) or ()) != 3:
    assert time.time() < deadline, "three partitions"
    probe.poll(timeout_ms=50)
    probe = KafkaConsumer(bootstrap_servers=bootstrap)
ends = probe.end_offsets([TopicPartition(topic, p) for p in range(3)])
assert sum(ends.values()) == len(sent), ends
times = probe.offsets_for_times({TopicPartition(topic, 0): 1})
assert times[TopicPartition(topic, 0)].offset == 0, times
admin.delete_topics([topic])
print("kafka-python ok")
