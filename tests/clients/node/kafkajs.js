// KafkaJS: administer, produce, consume in a group. usage: kafkajs.js BOOTSTRAP TOPIC (KAFKAJS = the module's folder)
'use strict';
const assert = require('assert');
const { Kafka, CompressionTypes, ConfigResourceTypes, logLevel } = require(process.env.KAFKAJS);
const [bootstrap, topic, nodes] = process.argv.slice(2);
const group = topic + '-g';

async function eventually(what, probe) {
  const end = Date.now() + 30000;
  while (!(await probe())) {
    if (Date.now() > end) throw new Error('not in time: ' + what);
    await new Promise((done) => setTimeout(done, 50));
  }
}

async function main() {
  const kafka = new Kafka({ clientId: 'kafkajs', brokers: [bootstrap], logLevel: logLevel.NOTHING, retry: { retries: 8 } });
  const admin = kafka.admin();
  await admin.connect();
  assert.strictEqual((await admin.describeCluster()).brokers.length, Number(nodes));
  const created = { topic, numPartitions: 3, configEntries: [{ name: 'retention.ms', value: '3600000' }] };
  assert.strictEqual(await admin.createTopics({ topics: [created], waitForLeaders: true }), true);
  assert.strictEqual(await admin.createTopics({ topics: [created] }), false, 'a second creation changes nothing');
  assert((await admin.listTopics()).includes(topic));
  const configs = await admin.describeConfigs({ resources: [{ type: ConfigResourceTypes.TOPIC, name: topic, configNames: ['retention.ms'] }] });
  assert(configs.resources[0].configEntries.some((e) => e.configValue === '3600000'), JSON.stringify(configs));

  const sent = [];
  for (const [compression, idempotent] of [[CompressionTypes.None, false], [CompressionTypes.GZIP, true]]) {
    const producer = kafka.producer({ idempotent, maxInFlightRequests: 1 });
    await producer.connect();
    for (let round = 0; round < 5; round++) {
      const messages = Array.from({ length: 50 }, (_, i) => ({ key: 'k' + (i % 7), value: `${compression}-${round}-${i}`, headers: { h: ['1', '2'] } }));
      await producer.send({ topic, acks: -1, compression, messages });
      sent.push(...messages.map((m) => m.value));
    }
    await producer.disconnect();
  }

  const consumer = kafka.consumer({ groupId: group, heartbeatInterval: 500 });
  await consumer.connect();
  await consumer.subscribe({ topic, fromBeginning: true });
  // A set: after an error KafkaJS may hand a batch out again.
  const got = new Set();
  await consumer.run({
    autoCommitThreshold: 50,
    eachMessage: async ({ message }) => {
      assert.deepStrictEqual(message.headers.h.map(String), ['1', '2']);
      got.add(message.value.toString());
    },
  });
  await eventually('all messages', () => got.size >= sent.length);
  await eventually('a stable group', async () => (await admin.describeGroups([group])).groups[0].state === 'Stable');
  await consumer.disconnect();
  assert.deepStrictEqual([...got].sort(), [...sent].sort());
  const committed = await admin.fetchOffsets({ groupId: group, topics: [topic] });
  assert.strictEqual(committed[0].partitions.reduce((sum, p) => sum + Number(p.offset), 0), sent.length);
  assert((await admin.listGroups()).groups.some((g) => g.groupId === group));

  // Back to the start of one partition, then on from there.
  await admin.setOffsets({ groupId: group, topic, partitions: [{ partition: 0, offset: '0' }] });
  assert.strictEqual((await admin.fetchOffsets({ groupId: group, topics: [topic] }))[0].partitions.find((p) => p.partition === 0).offset, '0');
  const at = await admin.fetchTopicOffsetsByTimestamp(topic, Date.now() - 3600000);
  assert(at.every((p) => p.offset === '0'), JSON.stringify(at));
  await admin.createPartitions({ topicPartitions: [{ topic, count: 5 }] });
  await eventually('five partitions', async () => (await admin.fetchTopicMetadata({ topics: [topic] })).topics[0].partitions.length === 5);
  // New partitions take requests a little after the metadata names them.
  await eventually('offsets of all partitions', () => admin.fetchTopicOffsets(topic).then((p) => p.length === 5, () => false));
  const first = (await admin.fetchTopicOffsets(topic)).find((p) => Number(p.high) > 5);
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: first.partition, offset: '5' }] });
  assert.strictEqual((await admin.fetchTopicOffsets(topic)).find((p) => p.partition === first.partition).low, '5');
  await admin.deleteGroups([group]);
  await admin.deleteTopics({ topics: [topic] });
  await eventually('the topic is gone', async () => !(await admin.listTopics()).includes(topic));
  await admin.disconnect();
  console.log('kafkajs ok');
}

main().then(
  () => process.exit(0),
  (e) => {
    console.error(e);
    process.exit(1);
  },
);
