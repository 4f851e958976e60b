# The images of Klamm, each one static binary and nothing else: no shell, no libraries, no package manager.
#
#   docker build --target broker   -t klamm/broker:0.1.0 .
#   docker build --target operator -t klamm/operator:0.1.0 .
#
# Both run as a user without a name or rights, and write nowhere: a broker's log.dirs has to be a volume that user 65532
# may write to (on Kubernetes: fsGroup). A test holds the last stages to what the suite of the operator runs in pods.

# The version is that of rust-toolchain.toml. Alpine's own target is the static one.
FROM rust:1.95.0-alpine AS build
RUN apk add --no-cache musl-dev gcc make
WORKDIR /src
COPY . .
# The file names further targets, which rustup would fetch; the compiler is the same.
ENV RUSTUP_TOOLCHAIN=1.95.0
RUN cargo build --locked --release -p klamm -p klamm-operator --bin klamm --bin klamm-operator \
 && mkdir /out && cp target/release/klamm target/release/klamm-operator /out/

FROM scratch AS operator
LABEL org.opencontainers.image.title="klamm-operator"
LABEL org.opencontainers.image.description="Runs Klamm on Kubernetes: reconciles Cluster, Topic and ConsumerGroup resources"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="0.1.0"
COPY --from=build /out/klamm-operator /klamm-operator
USER 65532:65532
ENTRYPOINT ["/klamm-operator"]

FROM scratch AS broker
LABEL org.opencontainers.image.title="klamm"
LABEL org.opencontainers.image.description="A broker that speaks Apache Kafka's protocol, and the tools to work with it"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="0.1.0"
COPY --from=build /out/klamm /klamm
USER 65532:65532
EXPOSE 9092 9644
ENTRYPOINT ["/klamm"]
