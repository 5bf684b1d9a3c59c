# Kafka Connect in distributed mode, with the Debezium and Avro plugins.
# shellcheck shell=bash

# What the files in connectors/ refer to as ${env:…}: the place of this stack, and one copy of everything, because there
# is one broker.
connect_environment() {
    cat <<LINES
DEBEZIUM_DATABASE_HOST=127.0.0.1
DEBEZIUM_DATABASE_PORT=$PG_PORT
DEBEZIUM_DATABASE_NAME=$PG_DATABASE
DEBEZIUM_DATABASE_USER=debezium
DEBEZIUM_DATABASE_PASSWORD=debezium
DEBEZIUM_DATABASE_SSLMODE=disable
DEBEZIUM_TOPIC_REPLICATION_FACTOR=1
DEBEZIUM_TOPIC_MIN_INSYNC_REPLICAS=1
DEBEZIUM_REGISTRY_URL=http://127.0.0.1:$REGISTRY_PORT/apis/registry/v2
LINES
}

connect_launch() {
    local dir="$STACK_DIR/connect" properties environment options memory
    properties="$dir/connect.properties"
    mkdir -p -- "$dir/secrets"
    {
        cat "$NATIVE_DIR/conf/connect.properties"
        printf '\n# The place of this stack.\n'
        printf 'bootstrap.servers=127.0.0.1:%s\n' "$KAFKA_PORT"
        printf 'listeners=http://127.0.0.1:%s\n' "$CONNECT_PORT"
        printf 'rest.advertised.host.name=127.0.0.1\n'
        printf 'plugin.path=%s/plugins\n' "$(parts_dir)"
        printf 'config.providers.file.param.allowed.paths=%s/secrets\n' "$dir"
    } >"$properties"
    mapfile -t environment < <(connect_environment)
    mapfile -t options < <(java_options)
    mapfile -t memory < <(conf_words connect.env CONNECT_JAVA_OPTS)
    spawn connect env "${environment[@]}" java "${options[@]}" "${memory[@]}" \
        "-Dlog4j2.configurationFile=$NATIVE_DIR/conf/log4j2.properties" -cp "$(parts_dir)/kafka/*" \
        org.apache.kafka.connect.cli.ConnectDistributed "$properties"
}

# /health answers 200 only when the worker has joined its group and read its topics.
connect_ready() {
    http_answers "http://127.0.0.1:$CONNECT_PORT/health" &&
        http_answers "http://127.0.0.1:$CONNECT_PORT/connector-plugins" io.debezium.connector.postgresql.PostgresConnector
}
