// kafka-go-client drives segmentio/kafka-go for the test suite.
//
// usage: kafka-go-client BOOTSTRAP codecs|produce|member|admin TOPIC [ARG]
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func expect(ok bool, format string, args ...any) {
	if !ok {
		check(fmt.Errorf(format, args...))
	}
}

func main() {
	bootstrap, act, topic := os.Args[1], os.Args[2], os.Args[3]
	ctx := context.Background()
	switch act {
	case "codecs":
		codecs(ctx, bootstrap, topic)
	case "produce":
		n, err := strconv.Atoi(os.Args[4])
		check(err)
		produce(ctx, bootstrap, topic, n)
	case "member":
		member(ctx, bootstrap, topic, os.Args[4])
	case "admin":
		admin(ctx, bootstrap, topic)
	default:
		check(errors.New("unknown act " + act))
	}
}

func writer(bootstrap, topic string) *kafka.Writer {
	return &kafka.Writer{
		Addr: kafka.TCP(bootstrap), Topic: topic, RequiredAcks: kafka.RequireAll,
		BatchTimeout: 5 * time.Millisecond, Balancer: &kafka.RoundRobin{},
	}
}

func codecs(ctx context.Context, bootstrap, topic string) {
	var sent []string
	for _, codec := range []kafka.Compression{0, kafka.Gzip, kafka.Snappy, kafka.Lz4, kafka.Zstd} {
		w := writer(bootstrap, topic)
		w.Compression = codec
		var messages []kafka.Message
		for i := range 100 {
			value := fmt.Sprintf("%v-%d", codec, i)
			headers := []kafka.Header{{Key: "d", Value: []byte("1")}, {Key: "d", Value: []byte("2")}}
			messages = append(messages, kafka.Message{Key: []byte("k"), Value: []byte(value), Headers: headers})
			sent = append(sent, value)
		}
		check(w.WriteMessages(ctx, messages...))
		check(w.Close())
	}
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap}, Topic: topic, Partition: 0, MaxWait: 100 * time.Millisecond})
	for i, want := range sent {
		c, cancel := context.WithTimeout(ctx, 20*time.Second)
		m, err := r.ReadMessage(c)
		cancel()
		check(err)
		expect(string(m.Value) == want && m.Offset == int64(i), "record %d is %q at %d, not %q", i, m.Value, m.Offset, want)
		expect(len(m.Headers) == 2 && string(m.Headers[1].Value) == "2", "headers %v", m.Headers)
	}
	check(r.Close())
	fmt.Println("codecs ok")
}

func produce(ctx context.Context, bootstrap, topic string, n int) {
	w := writer(bootstrap, topic)
	for from := 0; from < n; from += 100 {
		var messages []kafka.Message
		for i := from; i < min(from+100, n); i++ {
			messages = append(messages, kafka.Message{Value: []byte("v-" + strconv.Itoa(i))})
		}
		check(w.WriteMessages(ctx, messages...))
	}
	check(w.Close())
}

// member joins a group, prints each assignment and each value it reads, and goes on until it is killed.
func member(ctx context.Context, bootstrap, topic, group string) {
	g, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID: group, Brokers: []string{bootstrap}, Topics: []string{topic}, StartOffset: kafka.FirstOffset,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: 500 * time.Millisecond, JoinGroupBackoff: 200 * time.Millisecond,
		RebalanceTimeout: 6 * time.Second,
	})
	check(err)
	for {
		generation, err := g.Next(ctx)
		if err != nil {
			fmt.Fprintln(os.Stderr, "next:", err)
			continue
		}
		var names []string
		for _, a := range generation.Assignments[topic] {
			names = append(names, strconv.Itoa(a.ID))
		}
		fmt.Println("assigned", strings.Join(names, " "))
		for _, a := range generation.Assignments[topic] {
			generation.Start(func(ctx context.Context) { follow(ctx, bootstrap, topic, a.ID, a.Offset, generation) })
		}
	}
}

func follow(ctx context.Context, bootstrap, topic string, partition int, offset int64, generation *kafka.Generation) {
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{bootstrap}, Topic: topic, Partition: partition, MaxWait: 200 * time.Millisecond})
	defer r.Close()
	if err := r.SetOffset(offset); err != nil {
		fmt.Fprintln(os.Stderr, "offset:", err)
		return
	}
	for {
		m, err := r.ReadMessage(ctx)
		if err != nil {
			return
		}
		fmt.Println("got", partition, string(m.Value))
		if err := generation.CommitOffsets(map[string]map[int]int64{topic: {partition: m.Offset + 1}}); err != nil {
			fmt.Fprintln(os.Stderr, "commit:", err)
		}
	}
}

func admin(ctx context.Context, bootstrap, topic string) {
	c := &kafka.Client{Addr: kafka.TCP(bootstrap), Timeout: 20 * time.Second}
	created, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: topic, NumPartitions: 2, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{{ConfigName: "retention.ms", ConfigValue: "9000000"}},
	}}})
	check(err)
	check(created.Errors[topic])
	again, err := c.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 2, ReplicationFactor: 1}}})
	check(err)
	expect(errors.Is(again.Errors[topic], kafka.TopicAlreadyExists), "a second creation: %v", again.Errors[topic])
	configs, err := c.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"retention.ms"},
	}}})
	check(err)
	expect(configs.Resources[0].ConfigEntries[0].ConfigValue == "9000000", "configs %+v", configs.Resources)
	_, err = c.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{Resources: []kafka.IncrementalAlterConfigsRequestResource{{
		ResourceType: kafka.ResourceTypeTopic, ResourceName: topic,
		Configs: []kafka.IncrementalAlterConfigsRequestConfig{{Name: "retention.ms", Value: "8000000", ConfigOperation: kafka.ConfigOperationSet}},
	}}})
	check(err)
	w := writer(bootstrap, topic)
	check(w.WriteMessages(ctx, kafka.Message{Value: []byte("x")}, kafka.Message{Value: []byte("y")}))
	check(w.Close())
	offsets, err := c.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(0), kafka.LastOffsetOf(1)}}})
	check(err)
	var sum int64
	for _, p := range offsets.Topics[topic] {
		check(p.Error)
		sum += p.LastOffset
	}
	expect(sum == 2, "offsets %+v", offsets.Topics)
	grown, err := c.CreatePartitions(ctx, &kafka.CreatePartitionsRequest{Topics: []kafka.TopicPartitionsConfig{{Name: topic, Count: 3}}})
	check(err)
	check(grown.Errors[topic])
	group := topic + "-g"
	committed, err := c.OffsetCommit(ctx, &kafka.OffsetCommitRequest{GroupID: group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: {{Partition: 0, Offset: 1}}}})
	check(err)
	check(committed.Topics[topic][0].Error)
	fetched, err := c.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
	check(err)
	expect(fetched.Topics[topic][0].CommittedOffset == 1, "committed %+v", fetched.Topics)
	groups, err := c.ListGroups(ctx, &kafka.ListGroupsRequest{})
	check(err)
	found := false
	for _, g := range groups.Groups {
		found = found || g.GroupID == group
	}
	expect(found, "%s is not listed in %+v", group, groups.Groups)
	dropped, err := c.DeleteGroups(ctx, &kafka.DeleteGroupsRequest{GroupIDs: []string{group}})
	check(err)
	check(dropped.Errors[group])
	deleted, err := c.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	check(err)
	check(deleted.Errors[topic])
	fmt.Println("admin ok")
}
