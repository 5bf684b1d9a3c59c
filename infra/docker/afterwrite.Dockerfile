# The afterwrite binary. Build from the repository's root: docker build -f infra/docker/afterwrite.Dockerfile .

FROM rust:1.94-bookworm AS build
WORKDIR /build
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates cmake musl-tools \
 && rm -rf /var/lib/apt/lists/* \
 && rustup target add "$(uname -m)-unknown-linux-musl"
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    strip --output-file=/afterwrite -- "$(infra/release/compile)" \
 && infra/release/check /afterwrite

# The program is static, so there is nothing else to correct in it: no shell, no package. The authorities are Mozilla's, by Debian.
FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /afterwrite /usr/local/bin/afterwrite
USER 65532
# Asks admin.listen, which a worker in a container should have; where it is not set, nobody can be asked and nothing is said.
HEALTHCHECK --interval=20s --timeout=10s --start-period=60s \
  CMD ["/usr/local/bin/afterwrite", "health", "--if-listening"]
ENTRYPOINT ["/usr/local/bin/afterwrite"]
