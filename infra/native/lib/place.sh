# Where one stack lives: its directory, its ports, and what it remembers of them between commands.
# shellcheck shell=bash

say() { printf 'stack: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

now_ms() { printf '%s' "$((${EPOCHREALTIME/[.,]/} / 1000))"; }

seconds_since() {
    local tenths=$((($(now_ms) - $1) / 100))
    printf '%d.%d' "$((tenths / 10))" "$((tenths % 10))"
}

PORT_NAMES=(PG_PORT KAFKA_PORT KAFKA_CONTROLLER_PORT KAFKA_TLS_PORT KAFKA_SASL_PORT KAFKA_SCRAM_PORT CONNECT_PORT REGISTRY_PORT
    REGISTRY_TLS_PORT SMTP_PORT)

# The environment wins, then what the stack in STACK_DIR was started with, then the defaults. So `STACK_DIR=… stack env`
# is enough to ask a second stack for its addresses.
place_load() {
    STACK_DIR="$(realpath -m -- "${STACK_DIR:-$REPO_DIR/.stack}")"
    [[ $STACK_DIR =~ ^/[^[:space:]]+$ ]] || fail "STACK_DIR=$STACK_DIR must not be / nor hold spaces"
    local name value
    if [[ -f $STACK_DIR/ports ]]; then
        while IFS='=' read -r name value; do
            [[ -n ${!name-} ]] || printf -v "$name" '%s' "$value"
        done <"$STACK_DIR/ports"
    fi
    : "${PG_PORT:=25432}" "${KAFKA_PORT:=29092}" "${CONNECT_PORT:=28083}" "${REGISTRY_PORT:=28081}" "${SMTP_PORT:=2525}"
    : "${KAFKA_CONTROLLER_PORT:=$((KAFKA_PORT + 1000))}" "${REGISTRY_TLS_PORT:=$((REGISTRY_PORT + 1000))}"
    : "${KAFKA_TLS_PORT:=$((KAFKA_PORT + 2000))}" "${KAFKA_SASL_PORT:=$((KAFKA_PORT + 3000))}"
    : "${KAFKA_SCRAM_PORT:=$((KAFKA_PORT + 4000))}"
    for name in "${PORT_NAMES[@]}"; do
        if ! [[ ${!name} =~ ^[1-9][0-9]{0,4}$ ]] || ((${!name} > 65535)); then
            fail "$name=${!name} is no port"
        fi
    done
}

# Makes the directory and writes the ports down. Ports cannot change under running services. A directory with foreign
# files is refused, because `down --wipe` would delete them (a mailbox alone is docker-compose.yml's).
place_create() {
    local name lines="" service
    if [[ ! -f $STACK_DIR/ports && -n "$(ls -A -I mailbox -- "$STACK_DIR" 2>/dev/null)" ]]; then
        fail "$STACK_DIR holds files that are not a stack's; choose another STACK_DIR"
    fi
    for name in "${PORT_NAMES[@]}"; do
        lines+="$name=${!name}"$'\n'
    done
    if [[ -f $STACK_DIR/ports && "$(<"$STACK_DIR/ports")"$'\n' != "$lines" ]]; then
        for service in "${SERVICES[@]}"; do
            if running "$service"; then
                fail "the stack in $STACK_DIR runs on other ports; take it down first, or choose another STACK_DIR"
            fi
        done
    fi
    mkdir -p "$STACK_DIR/run" "$STACK_DIR/log" "$STACK_DIR/tmp"
    printf '%s' "$lines" >"$STACK_DIR/ports"
}

# Deletes the stack's files. A directory that no stack was ever started in is left alone. The file that tells goes last:
# whoever is cut off in the middle can begin again.
place_wipe() {
    if rmdir -- "$STACK_DIR" 2>/dev/null; then return 0; fi
    [[ -f $STACK_DIR/ports ]] || fail "$STACK_DIR was not made by this script: not deleted"
    rm -rf -- "$(postgres_dir)"
    find "$STACK_DIR" -mindepth 1 -maxdepth 1 ! -name ports -exec rm -rf -- {} +
    rm -rf -- "$STACK_DIR"
}

service_port() {
    case $1 in
        postgres) printf '%s' "$PG_PORT" ;;
        kafka) printf '%s' "$KAFKA_PORT" ;;
        connect) printf '%s' "$CONNECT_PORT" ;;
        registry) printf '%s' "$REGISTRY_PORT" ;;
        smtp) printf '%s' "$SMTP_PORT" ;;
    esac
}

log_file() { printf '%s/log/%s.log' "$STACK_DIR" "$1"; }
