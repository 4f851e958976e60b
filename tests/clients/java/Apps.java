import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;

/** Small programs over the Java client for what the console tools can't show. */
public final class Apps {
    public static void main(String[] args) throws Exception {
        switch (args[0]) {
            case "commit" -> commit(args[1], args[2], args[3], args[4], args[5], Integer.parseInt(args[6]));
            case "headers" -> headers(args[1], args[2]);
            case "regex" -> regex(args[1], args[2], args[3], Integer.parseInt(args[4]));
            case "late" -> late(args[1], args[2], args[3]);
            default -> throw new IllegalArgumentException(args[0]);
        }
    }

    private static Properties consumer(String bootstrap, String group, String reset) {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("group.id", group);
        p.put("auto.offset.reset", reset);
        p.put("enable.auto.commit", "false");
        p.put("metadata.max.age.ms", "500");
        p.put("key.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        p.put("value.deserializer", "org.apache.kafka.common.serialization.StringDeserializer");
        return p;
    }

    /** Reads COUNT records in a group, commits the way MODE says, prints each value and then the committed sum. */
    private static void commit(String bootstrap, String topic, String group, String mode, String reset, int count) throws Exception {
        Properties p = consumer(bootstrap, group, reset);
        if (mode.equals("auto")) {
            p.put("enable.auto.commit", "true");
            p.put("auto.commit.interval.ms", "100");
        }
        // One record a poll, so that a commit stands exactly where the reading stopped.
        p.put("max.poll.records", "1");
        int got = 0;
        try (KafkaConsumer<String, String> c = new KafkaConsumer<>(p)) {
            c.subscribe(List.of(topic));
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(40);
            while (got < count && System.nanoTime() < end) {
                for (ConsumerRecord<String, String> r : c.poll(Duration.ofMillis(200))) {
                    System.out.println("value " + r.value());
                    got++;
                    if (mode.equals("sync")) c.commitSync();
                    if (mode.equals("async")) {
                        CountDownLatch done = new CountDownLatch(1);
                        Exception[] error = new Exception[1];
                        c.commitAsync((offsets, e) -> {
                            error[0] = e;
                            done.countDown();
                        });
                        // Callbacks run inside poll; pause so that no record is taken meanwhile.
                        c.pause(c.assignment());
                        while (done.getCount() > 0 && System.nanoTime() < end) c.poll(Duration.ofMillis(20));
                        c.resume(c.assignment());
                        if (error[0] != null) throw error[0];
                    }
                }
            }
            if (count == 0) {
                // Only take a position: what the group would read next.
                while (c.assignment().isEmpty() && System.nanoTime() < end) c.poll(Duration.ofMillis(50));
            }
            Map<String, Long> positions = new TreeMap<>();
            for (TopicPartition t : c.assignment()) positions.put(t.toString(), c.position(t));
            System.out.println("positions " + positions);
        }
        System.out.println("read " + got);
        if (got < count) throw new IllegalStateException("only " + got + " of " + count);
    }

    /** Duplicate header keys, null values and null keys go through unchanged and in order. */
    private static void headers(String bootstrap, String topic) throws Exception {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        p.put("key.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        p.put("value.serializer", "org.apache.kafka.common.serialization.StringSerializer");
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(p)) {
            List<Header> headers = List.of(new RecordHeader("a", "1".getBytes()), new RecordHeader("b", null), new RecordHeader("a", "2".getBytes()), new RecordHeader("", new byte[0]));
            var m = producer.send(new ProducerRecord<>(topic, 0, 1234567890123L, null, null, headers)).get();
            System.out.println("written " + m.offset() + " " + m.timestamp());
        }
        try (KafkaConsumer<String, String> c = new KafkaConsumer<>(consumer(bootstrap, "none", "earliest"))) {
            c.assign(List.of(new TopicPartition(topic, 0)));
            c.seekToBeginning(c.assignment());
            ConsumerRecords<String, String> records = c.poll(Duration.ofSeconds(20));
            for (ConsumerRecord<String, String> r : records) {
                List<String> h = new ArrayList<>();
                for (Header x : r.headers()) h.add(x.key() + "=" + (x.value() == null ? "null" : new String(x.value())));
                System.out.println("record " + r.offset() + " " + r.timestamp() + " " + r.timestampType() + " " + r.key() + " " + r.value() + " " + h);
            }
        }
    }

    /** Subscribes by pattern and prints assignments and values until COUNT different values are read. */
    private static void regex(String bootstrap, String pattern, String group, int count) {
        try (KafkaConsumer<String, String> c = new KafkaConsumer<>(consumer(bootstrap, group, "earliest"))) {
            c.subscribe(Pattern.compile(pattern), new ConsumerRebalanceListener() {
                @Override
                public void onPartitionsRevoked(Collection<TopicPartition> p) {
                    System.out.println("revoked " + p);
                }

                @Override
                public void onPartitionsAssigned(Collection<TopicPartition> p) {
                    System.out.println("assigned " + p);
                }
            });
            // A rebalance brings what was not committed once more.
            Set<String> got = new HashSet<>();
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(60);
            while (got.size() < count && System.nanoTime() < end) {
                for (ConsumerRecord<String, String> r : c.poll(Duration.ofMillis(100))) {
                    System.out.println("value " + r.topic() + " " + r.value());
                    got.add(r.topic() + " " + r.value());
                }
                c.commitSync(Map.<TopicPartition, OffsetAndMetadata>of());
            }
        }
    }

    /** Reads TOPIC from its end in a group, and hears of its third partition only after there are records in it. */
    private static void late(String bootstrap, String topic, String group) throws Exception {
        Properties p = consumer(bootstrap, group, "latest");
        p.put("enable.auto.commit", "true");
        p.put("auto.commit.interval.ms", "100");
        TopicPartition third = new TopicPartition(topic, 2);
        try (KafkaConsumer<String, String> c = new KafkaConsumer<>(p);
                KafkaConsumer<String, String> other = new KafkaConsumer<>(consumer(bootstrap, group + "-other", "none"))) {
            c.subscribe(List.of(topic));
            long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(90);
            while (c.committed(Set.of(new TopicPartition(topic, 0))).values().stream().allMatch(o -> o == null)) {
                c.poll(Duration.ofMillis(100));
            }
            System.out.println("ready");
            // Without polling it takes no new partitions, and its heartbeats go on.
            while (other.partitionsFor(topic).size() < 3 || other.endOffsets(List.of(third)).get(third) < 3) {
                Thread.sleep(100);
            }
            while (System.nanoTime() < end) {
                for (ConsumerRecord<String, String> r : c.poll(Duration.ofMillis(100))) {
                    System.out.println("got " + r.value());
                    if (r.value().equals("late")) return;
                }
            }
        }
    }
}
