# Kafka Connect with Debezium and the Avro converter, from the versions infra/native/pom.xml pins.
# Build from the repository's root: docker build -f infra/docker/connect.Dockerfile .

FROM maven:3.9-eclipse-temurin-17 AS parts
WORKDIR /build
COPY infra/native/pom.xml .
RUN mvn --batch-mode --quiet --activate-profiles kafka dependency:copy-dependencies -Dstack.cache=/parts \
 && mvn --batch-mode --quiet --activate-profiles converter dependency:copy-dependencies -Dstack.cache=/parts \
 && mvn --batch-mode --quiet --activate-profiles debezium dependency:unpack-dependencies -Dstack.cache=/parts

FROM eclipse-temurin:17-jre
RUN useradd --system --create-home --home-dir /var/lib/connect connect
COPY --from=parts /parts/kafka /opt/connect/kafka
COPY --from=parts /parts/plugins /opt/connect/plugins
COPY infra/native/conf/connect.properties infra/native/conf/log4j2.properties /opt/connect/conf/
COPY --chmod=755 infra/docker/connect-entrypoint /opt/connect/entrypoint
USER connect
EXPOSE 8083
ENTRYPOINT ["/opt/connect/entrypoint"]
