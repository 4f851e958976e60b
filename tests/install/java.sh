#!/bin/bash
# Apache Kafka 4.3.1: jars into $KLAMM_CACHE/kafka/lib, wrappers into $KLAMM_CACHE/kafka/bin.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need javac default-jdk-headless
need mvn maven
KAFKA=$KLAMM_CACHE/kafka
mark=$(fingerprint "$HERE/java/pom.xml" "$HERE/java.sh")

wrapper() { # NAME CLASS HEAP
  cat >"$KAFKA/bin/$1.new" <<W
#!/bin/bash
exec java \${KAFKA_HEAP_OPTS:--Xmx$3} \${KAFKA_OPTS:-} -Dlog4j2.configurationFile=$KAFKA/config/tools-log4j2.xml -cp "$KAFKA/lib/*" $2 "\$@"
W
  chmod +x "$KAFKA/bin/$1.new"
  mv "$KAFKA/bin/$1.new" "$KAFKA/bin/$1"
}

install_java() {
  mkdir -p "$KAFKA"/{bin,lib,config}
  retry mvn -q -B -f "$HERE/java/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DoutputDirectory="$KAFKA/lib" -DincludeScope=runtime
  local kind level
  for kind in tools:SYSTEM_ERR:WARN server:SYSTEM_OUT:INFO; do
    IFS=: read -r kind target level <<<"$kind"
    cat >"$KAFKA/config/$kind-log4j2.xml" <<W
<Configuration status="WARN"><Appenders><Console name="C" target="$target"><PatternLayout pattern="[%d] %p %m (%c)%n"/></Console></Appenders>
<Loggers><Root level="$level"><AppenderRef ref="C"/></Root></Loggers></Configuration>
W
  done
  local T=org.apache.kafka.tools
  wrapper kafka-topics $T.TopicCommand 256M
  wrapper kafka-configs kafka.admin.ConfigCommand 256M
  wrapper kafka-console-producer $T.ConsoleProducer 512M
  wrapper kafka-console-consumer $T.consumer.ConsoleConsumer 512M
  wrapper kafka-consumer-groups $T.consumer.group.ConsumerGroupCommand 256M
  wrapper kafka-groups $T.GroupsCommand 256M
  wrapper kafka-get-offsets $T.GetOffsetShell 256M
  wrapper kafka-delete-records $T.DeleteRecordsCommand 256M
  wrapper kafka-dump-log $T.DumpLogSegments 256M
  wrapper kafka-producer-perf-test $T.ProducerPerformance 512M
  wrapper kafka-consumer-perf-test $T.ConsumerPerformance 512M
  wrapper kafka-broker-api-versions $T.BrokerApiVersionsCommand 256M
  wrapper kafka-storage kafka.tools.StorageTool 256M
  wrapper kafka-cluster $T.ClusterTool 256M
  wrapper kafka-reassign-partitions $T.reassign.ReassignPartitionsCommand 256M
  wrapper kafka-replica-verification $T.ReplicaVerificationTool 256M
  wrapper kafka-verifiable-producer $T.VerifiableProducer 256M
  wrapper kafka-verifiable-consumer $T.VerifiableConsumer 256M
  [ -s "$KAFKA/lib/kafka-clients-4.3.1.jar" ] && [ -s "$KAFKA/lib/kafka-tools-4.3.1.jar" ]
  finished java "$mark"
}
once java "$mark" install_java

# The programs of tests/clients/java, compiled.
driver=$(fingerprint "$TESTS"/clients/java/*.java "$HERE/java/pom.xml")
install_driver() {
  rm -rf "$KLAMM_CACHE/java-driver.new"
  mkdir -p "$KLAMM_CACHE/java-driver.new"
  javac -nowarn -cp "$KAFKA/lib/*" -d "$KLAMM_CACHE/java-driver.new" "$TESTS"/clients/java/*.java
  rm -rf "$KLAMM_CACHE/java-driver"
  mv "$KLAMM_CACHE/java-driver.new" "$KLAMM_CACHE/java-driver"
  finished java-driver "$driver"
}
once java-driver "$driver" install_driver
