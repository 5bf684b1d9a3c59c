# The afterwrite binary. Build from the repository's root: docker build -f infra/docker/afterwrite.Dockerfile .

FROM rust:1.94-bookworm AS build
WORKDIR /build
RUN apt-get update && apt-get install --yes --no-install-recommends cmake && rm -rf /var/lib/apt/lists/*
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin afterwrite \
 && strip --strip-debug --output-file=/afterwrite target/release/afterwrite

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates libssl3 zlib1g \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --no-create-home --uid 65532 afterwrite
COPY --from=build /afterwrite /usr/local/bin/afterwrite
USER 65532
# Asks admin.listen, which a worker in a container should have; where it is not set, nobody can be asked and nothing is said.
HEALTHCHECK --interval=20s --timeout=10s --start-period=60s \
  CMD afterwrite health || { [ $? -eq 2 ] && exit 0; exit 1; }
ENTRYPOINT ["afterwrite"]
