# Kafka: one KRaft node, broker and controller in one process.
# shellcheck shell=bash

kafka_dir() { printf '%s/kafka' "$STACK_DIR"; }

kafka_java() {
    local options heap
    mapfile -t options < <(java_options && conf_words kafka.env KAFKA_JVM_PERFORMANCE_OPTS)
    mapfile -t heap < <(conf_words kafka.env KAFKA_HEAP_OPTS)
    KAFKA_JAVA=(java "${options[@]}" "${heap[@]}" "-Dlog4j2.configurationFile=$NATIVE_DIR/conf/log4j2.properties"
        -cp "$(parts_dir)/kafka/*")
}

kafka_launch() {
    local dir properties
    dir="$(kafka_dir)"
    properties="$dir/server.properties"
    mkdir -p -- "$dir"
    kafka_java
    {
        cat "$NATIVE_DIR/conf/server.properties"
        printf '\n# The place of this stack.\n'
        printf 'listeners=HOST://127.0.0.1:%s,CONTROLLER://127.0.0.1:%s\n' "$KAFKA_PORT" "$KAFKA_CONTROLLER_PORT"
        printf 'advertised.listeners=HOST://127.0.0.1:%s\n' "$KAFKA_PORT"
        printf 'inter.broker.listener.name=HOST\n'
        printf 'controller.quorum.voters=1@127.0.0.1:%s\n' "$KAFKA_CONTROLLER_PORT"
        printf 'log.dirs=%s/data\n' "$dir"
    } >"$properties"
    spawn kafka bash -c "$KAFKA_START" kafka "$dir/data/meta.properties" "$properties" "${KAFKA_JAVA[@]}"
}

# Formats the storage when it is new, then becomes the broker: the pid stays the same. Runs beside the other services'
# start, so that a first start does not wait for it. The arguments: meta.properties, server.properties, java….
# A fixed cluster id: this cluster has one node, and nobody else's can join it.
# shellcheck disable=SC2016 # expanded by the shell that runs it
KAFKA_START='
    meta=$1 properties=$2
    shift 2
    if [[ ! -f $meta ]]; then
        "$@" kafka.tools.StorageTool format --cluster-id YWZ0ZXJ3cml0ZS1zdGFjaw --config "$properties" || exit 1
    fi
    exec "$@" kafka.Kafka "$properties"
'

# A metadata request without topics (key 3, version 1, correlation id 1, no client id). The broker is ready when the
# answer names at least one broker: a listening socket alone may belong to a node that is still fenced.
kafka_ready() {
    local request='\x00\x00\x00\x0e\x00\x03\x00\x01\x00\x00\x00\x01\xff\xff\x00\x00\x00\x00' bytes
    # shellcheck disable=SC2016 # expanded by the inner shell
    bytes="$(timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && printf "$2" >&3 && head -c 12 <&3 | od -An -v -tu1' \
        probe "$KAFKA_PORT" "$request" 2>/dev/null)" || return 1
    local answer
    read -ra answer <<<"$bytes"
    ((${#answer[@]} == 12 && answer[7] == 1 && answer[11] >= 1))
}
