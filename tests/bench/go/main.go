// kgo-bench is the load of the benchmark, over franz-go.
//
// usage: kgo-bench BOOTSTRAP create|delete|produce|consume|first-ack TOPIC [flags]
package main

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func main() {
	if len(os.Args) < 4 {
		check(errors.New("usage: kgo-bench BOOTSTRAP ACT TOPIC [flags]"))
	}
	bootstrap, act, topic := os.Args[1], os.Args[2], os.Args[3]
	flags := flag.NewFlagSet("kgo-bench", flag.ExitOnError)
	records := flags.Int64("records", 100000, "how many")
	size := flags.Int("size", 1024, "bytes of a value")
	partitions := flags.Int("partitions", 1, "of a new topic")
	replication := flags.Int("replication", 1, "replicas of a new topic's partitions")
	batch := flags.Int("batch", 1000000, "most bytes of a batch")
	linger := flags.Duration("linger", 5*time.Millisecond, "how long a batch waits for more")
	fetch := flags.Int("fetch", 50<<20, "most bytes of a fetch")
	check(flags.Parse(os.Args[4:]))

	ctx := context.Background()
	if act == "first-ack" {
		firstAck(bootstrap, topic)
		return
	}
	options := []kgo.Opt{kgo.SeedBrokers(strings.Split(bootstrap, ",")...), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchMaxBytes(int32(*batch)),
		kgo.ProducerLinger(*linger), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.MaxBufferedRecords(250<<20 / *size + 1)}
	if act == "consume" {
		options = append(options, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(int32(*fetch)))
	}
	client, err := kgo.NewClient(options...)
	check(err)
	defer client.Close()
	switch act {
	case "create":
		create(ctx, client, topic, *partitions, *replication)
	case "delete":
		remove(ctx, client, topic)
	case "produce":
		produce(ctx, client, *records, *size)
	case "consume":
		consume(ctx, client, *records)
	default:
		check(errors.New("unknown act " + act))
	}
}

func create(ctx context.Context, client *kgo.Client, topic string, partitions, replication int) {
	request := kmsg.NewPtrCreateTopicsRequest()
	request.TimeoutMillis = 60000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, int32(partitions), int16(replication)
	request.Topics = append(request.Topics, t)
	response, err := request.RequestWith(ctx, client)
	check(err)
	check(kerr.ErrorForCode(response.Topics[0].ErrorCode))
	// Until every partition has a leader.
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		metadata := kmsg.NewPtrMetadataRequest()
		m := kmsg.NewMetadataRequestTopic()
		m.Topic = kmsg.StringPtr(topic)
		metadata.Topics = append(metadata.Topics, m)
		answer, err := metadata.RequestWith(ctx, client)
		check(err)
		led := 0
		for _, p := range answer.Topics[0].Partitions {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				led++
			}
		}
		if led == partitions {
			return
		}
		if time.Now().After(end) {
			check(fmt.Errorf("%d of %d partitions have a leader", led, partitions))
		}
	}
}

func remove(ctx context.Context, client *kgo.Client, topic string) {
	request := kmsg.NewPtrDeleteTopicsRequest()
	request.TimeoutMillis = 60000
	request.TopicNames = []string{topic}
	t := kmsg.NewDeleteTopicsRequestTopic()
	t.Topic = kmsg.StringPtr(topic)
	request.Topics = append(request.Topics, t)
	response, err := request.RequestWith(ctx, client)
	check(err)
	check(kerr.ErrorForCode(response.Topics[0].ErrorCode))
}

// produce writes with acks=all, idempotently, as franz-go does by default.
func produce(ctx context.Context, client *kgo.Client, records int64, size int) {
	// A different window of one noisy buffer for each record.
	noise := make([]byte, 1<<16+size)
	state := uint32(1)
	for i := range noise {
		state = state*1664525 + 1013904223
		noise[i] = byte(state >> 24)
	}
	var failed atomic.Int64
	for i := range records {
		from := int(i*31) & 0xffff
		client.Produce(ctx, &kgo.Record{Value: noise[from : from+size]}, func(_ *kgo.Record, err error) {
			if err != nil && failed.Add(1) == 1 {
				fmt.Fprintln(os.Stderr, "error:", err)
			}
		})
	}
	check(client.Flush(ctx))
	if n := failed.Load(); n > 0 {
		check(fmt.Errorf("%d records failed", n))
	}
	fmt.Println("produced", records)
}

func consume(ctx context.Context, client *kgo.Client, records int64) {
	var got int64
	for got < records {
		limited, cancel := context.WithTimeout(ctx, 60*time.Second)
		fetches := client.PollFetches(limited)
		cancel()
		for _, e := range fetches.Errors() {
			check(fmt.Errorf("after %d records: %w", got, e.Err))
		}
		got += int64(fetches.NumRecords())
	}
	fmt.Println("consumed", got)
}

// firstAck waits for a broker that is about to start and prints the time (ns since 1970) of its first acknowledged
// produce. It speaks the protocol itself: a client's pauses between attempts would be what is measured.
func firstAck(bootstrap, topic string) {
	fmt.Println("waiting")
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(500 * time.Microsecond) {
		connection, err := net.Dial("tcp", bootstrap)
		if err != nil {
			continue
		}
		for {
			code, err := produceOne(connection, topic)
			if err != nil {
				break
			}
			if code == 0 {
				fmt.Println("acked", time.Now().UnixNano())
				return
			}
			time.Sleep(500 * time.Microsecond)
		}
		connection.Close()
	}
	check(errors.New("no acknowledgement within two minutes"))
}

func produceOne(connection net.Conn, topic string) (int16, error) {
	request := kmsg.NewPtrProduceRequest()
	request.SetVersion(9)
	request.Acks, request.TimeoutMillis = -1, 10000
	t := kmsg.NewProduceRequestTopic()
	t.Topic = topic
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = oneRecord()
	t.Partitions = append(t.Partitions, p)
	request.Topics = append(request.Topics, t)
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("first")).AppendRequest(nil, request, 1)
	if _, err := connection.Write(frame); err != nil {
		return 0, err
	}
	check(connection.SetReadDeadline(time.Now().Add(20 * time.Second)))
	var length [4]byte
	if _, err := io.ReadFull(connection, length[:]); err != nil {
		return 0, err
	}
	body := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(connection, body); err != nil {
		return 0, err
	}
	response := kmsg.NewPtrProduceResponse()
	response.SetVersion(9)
	// Correlation id and an empty tag section precede the answer.
	if err := response.ReadFrom(body[5:]); err != nil {
		return 0, err
	}
	return response.Topics[0].Partitions[0].ErrorCode, nil
}

func oneRecord() []byte {
	record := kmsg.NewRecord()
	record.Value = []byte("first")
	// Attributes, two deltas, no key, the value, no headers.
	record.Length = int32(3 + 1 + 1 + len(record.Value) + 1)
	batch := kmsg.NewRecordBatch()
	batch.PartitionLeaderEpoch, batch.Magic, batch.NumRecords = -1, 2, 1
	batch.FirstTimestamp, batch.MaxTimestamp = time.Now().UnixMilli(), time.Now().UnixMilli()
	batch.ProducerID, batch.ProducerEpoch, batch.FirstSequence = -1, -1, -1
	batch.Records = record.AppendTo(nil)
	batch.Length = int32(49 + len(batch.Records))
	bytes := batch.AppendTo(nil)
	// The checksum covers everything from the attributes on.
	binary.BigEndian.PutUint32(bytes[17:], crc32.Checksum(bytes[21:], crc32.MakeTable(crc32.Castagnoli)))
	return bytes
}
