#!/bin/bash
# Apache Kafka 4.4.0's message classes into $KLAMM_CACHE/kafka-44, and the partner of the wire suite compiled against
# them into $KLAMM_CACHE/wire-peer.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
need javac default-jdk-headless
need mvn maven
LIB=$KLAMM_CACHE/kafka-44
jars=$(fingerprint "$TESTS/wire/java/pom.xml" "$HERE/kafka-44.sh")
install_jars() {
  rm -rf "$LIB.new"
  # The jars alone: some of their own dependencies are heavy, and none is needed to serialize.
  retry mvn -q -B -f "$TESTS/wire/java/pom.xml" org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies \
    -DoutputDirectory="$LIB.new" -DexcludeTransitive=true
  [ -s "$LIB.new/kafka-clients-4.4.0.jar" ]
  rm -rf "$LIB"
  mv "$LIB.new" "$LIB"
  finished kafka-44 "$jars"
}
once kafka-44 "$jars" install_jars

peer=$(fingerprint "$TESTS"/wire/java/*.java "$TESTS/wire/java/pom.xml")
install_peer() {
  rm -rf "$KLAMM_CACHE/wire-peer.new"
  mkdir -p "$KLAMM_CACHE/wire-peer.new"
  javac -nowarn -cp "$LIB/*" -d "$KLAMM_CACHE/wire-peer.new" "$TESTS"/wire/java/*.java
  rm -rf "$KLAMM_CACHE/wire-peer"
  mv "$KLAMM_CACHE/wire-peer.new" "$KLAMM_CACHE/wire-peer"
  finished wire-peer "$peer"
}
once wire-peer "$peer" install_peer
