"""Small administrative acts through confluent-kafka. usage: admin.py BOOTSTRAP ACT [ARG...]"""

import sys
import time
from datetime import datetime, timezone

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

bootstrap, act, args = sys.argv[1], sys.argv[2], sys.argv[3:]
admin = AdminClient({"bootstrap.servers": bootstrap})


def create(topic, partitions, *configs):
    new = NewTopic(topic, num_partitions=int(partitions), config=dict(c.split("=", 1) for c in configs))
    admin.create_topics([new])[topic].result(30)
    # The answer may come before the partitions take requests.
    probe = offsets("none")
    deadline = time.time() + 30
    for partition in range(int(partitions)):
        while True:
            try:
                probe.get_watermark_offsets(TopicPartition(topic, partition), timeout=5)
                break
            except KafkaException:
                assert time.time() < deadline, f"{topic} {partition} takes no requests"
    probe.close()


def offsets(group):
    return Consumer({"bootstrap.servers": bootstrap, "group.id": group, "enable.auto.commit": False})


def commit(topic, group, partition, offset):
    consumer = offsets(group)
    consumer.commit(offsets=[TopicPartition(topic, int(partition), int(offset))], asynchronous=False)
    consumer.close()


def committed(topic, group, partition):
    consumer = offsets(group)
    print(consumer.committed([TopicPartition(topic, int(partition))], timeout=30)[0].offset)
    consumer.close()


def brokers():
    print(" ".join(str(b) for b in admin.list_topics(timeout=30).brokers))


def moment():
    """A time that lies strictly between what was written before and what is written after."""
    time.sleep(0.05)
    at = time.time()
    time.sleep(0.05)
    return at


def now():
    print(datetime.fromtimestamp(moment(), timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z")


def millis():
    print(int(moment() * 1000))


def tour(topic, brokers):
    """Create, describe, configure, grow, look at groups and offsets, delete."""
    create(topic, 2, "retention.ms=5000000")
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    shown = admin.describe_configs([resource])[resource].result(30)
    assert shown["retention.ms"].value == "5000000", shown["retention.ms"]
    assert not shown["retention.ms"].is_default
    change = ConfigResource(
        ConfigResource.Type.TOPIC,
        topic,
        incremental_configs=[
            ConfigEntry("retention.ms", "6000000", incremental_operation=AlterConfigOpType.SET),
            ConfigEntry("cleanup.policy", "compact", incremental_operation=AlterConfigOpType.APPEND),
        ],
    )
    admin.incremental_alter_configs([change])[change].result(30)
    shown = admin.describe_configs([resource])[resource].result(30)
    assert shown["retention.ms"].value == "6000000"
    assert sorted(shown["cleanup.policy"].value.split(",")) == ["compact", "delete"], shown["cleanup.policy"].value
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(30)
    deadline = time.time() + 20
    while len(admin.list_topics(topic, timeout=10).topics[topic].partitions) != 4:
        assert time.time() < deadline, "four partitions"
    cluster = admin.describe_cluster().result(30)
    assert cluster.cluster_id and len(cluster.nodes) == int(brokers), cluster
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(30)
    assert len(described.partitions) == 4 and described.topic_id is not None
    group = topic + "-g"
    commit(topic, group, 1, 0)
    listed = admin.list_consumer_groups().result(30)
    assert group in [g.group_id for g in listed.valid], listed.valid
    one = admin.describe_consumer_groups([group])[group].result(30)
    assert one.group_id == group and not one.members, one
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(30)
    assert [(p.partition, p.offset) for p in found.topic_partitions] == [(1, 0)], found.topic_partitions
    wanted = {TopicPartition(topic, 0): OffsetSpec.latest(), TopicPartition(topic, 1): OffsetSpec.earliest()}
    for partition, future in admin.list_offsets(wanted).items():
        assert future.result(30).offset == 0, partition
    deleted = admin.delete_records([TopicPartition(topic, 0, 0)])
    for future in deleted.values():
        assert future.result(30).low_watermark == 0
    admin.delete_consumer_groups([group])[group].result(30)
    try:
        create(topic, 1)
        raise AssertionError("created twice")
    except KafkaException as e:
        assert e.args[0].name() == "TOPIC_ALREADY_EXISTS", e
    admin.delete_topics([topic])[topic].result(30)
    print("tour ok")


{"create": create, "commit": commit, "committed": committed, "brokers": brokers, "now": now, "millis": millis, "tour": tour}[act](*args)
