# Starting, watching and ending one process a service. A pid file holds the pid and the process's start time, so that
# a pid which the kernel has given to somebody else since is never signalled.
# shellcheck shell=bash

READY_SECONDS_MAX=120
STOP_SECONDS_MAX=15
POLL_SECONDS=0.1

pid_file() { printf '%s/run/%s.pid' "$STACK_DIR" "$1"; }

# Field 22 of /proc/PID/stat; the name in field 2 may hold spaces, so count from its closing bracket.
# A zombie has ended and only waits for its parent to ask; unless threads of it are left, which still hold its port.
start_time() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    local fields
    read -ra fields <<<"${stat##*) }"
    if [[ ${fields[0]} == Z ]]; then
        local threads=("/proc/$1/task"/*)
        ((${#threads[@]} > 1)) || return 1
    fi
    printf '%s' "${fields[19]}"
}

# The pid when the service runs, "-" when not.
running_pid() {
    local pid started
    if { read -r pid started <"$(pid_file "$1")"; } 2>/dev/null && [[ "$(start_time "$pid")" == "$started" ]]; then
        printf '%s' "$pid"
    else
        printf '%s' -
    fi
}

running() { [[ "$(running_pid "$1")" != - ]]; }

port_taken() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# Starts a service that is down. False when it was running already. The lock keeps two callers from starting it twice;
# it is not handed to the service.
launch() {
    local service=$1
    exec 9>"$STACK_DIR/run/$service.lock"
    flock 9
    if running "$service"; then
        exec 9>&-
        return 1
    fi
    if port_taken "$(service_port "$service")"; then
        fail "port $(service_port "$service") of $service is taken by another program; choose another port"
    fi
    say "starting $service on port $(service_port "$service")"
    "${service}_launch"
    exec 9>&-
}

# Runs a command as the service's process, in a session of its own, so that a ^C at the terminal does not reach it.
spawn() {
    local service=$1
    shift
    (cd / && exec setsid "$@") >>"$(log_file "$service")" 2>&1 </dev/null 9>&- &
    local pid=$!
    printf '%s %s\n' "$pid" "$(start_time "$pid")" >"$(pid_file "$service")"
    disown "$pid" 2>/dev/null || true
}

# Waits until the service answers; fails at once when its process ends.
await_ready() {
    local service=$1 began=$2 started=$3 deadline
    deadline=$(($(now_ms) + READY_SECONDS_MAX * 1000))
    until "${service}_ready"; do
        running "$service" || show_log_and_fail "$service" "ended instead of becoming ready"
        (($(now_ms) < deadline)) || show_log_and_fail "$service" "did not answer within $READY_SECONDS_MAX s"
        sleep "$POLL_SECONDS"
    done
    if declare -F "${service}_prepare" >/dev/null; then
        # One caller at a time: two would make the same database.
        (flock 9 && "${service}_prepare") 9>"$STACK_DIR/run/$service.lock"
    fi
    if [[ " $started " == *" $service "* ]]; then
        say "$service ready in $(seconds_since "$began") s"
    else
        say "$service was already running"
    fi
}

show_log_and_fail() {
    local log
    log="$(log_file "$1")"
    say "$1 $2; the end of $log:"
    tail -n 30 -- "$log" >&2 || true
    exit 1
}

signal_service() {
    local pid
    pid="$(running_pid "$1")"
    if [[ $pid != - ]]; then
        kill -s "$2" "$pid" 2>/dev/null || true
    fi
}

# Postgres calls SIGINT a fast shutdown; SIGTERM would wait for every client to leave.
stop_signal() {
    if [[ $1 == postgres ]]; then printf INT; else printf TERM; fi
}

# For a stack whose data is about to be deleted. Postgres gets SIGQUIT, so that it frees its shared memory.
discard() {
    if [[ $1 == postgres ]]; then signal_service "$1" QUIT; else signal_service "$1" KILL; fi
}

# Waits until the process is gone; one that does not go in time is killed, and that is said.
await_gone() {
    local service=$1 deadline
    deadline=$(($(now_ms) + STOP_SECONDS_MAX * 1000))
    while running "$service"; do
        if (($(now_ms) >= deadline)); then
            say "$service did not stop within $STOP_SECONDS_MAX s: killed"
            signal_service "$service" KILL
            deadline=$(($(now_ms) + STOP_SECONDS_MAX * 1000))
        fi
        sleep 0.05
    done
    rm -f -- "$(pid_file "$service")"
}

# GET that must answer 200 and, when a text is given, contain it.
http_answers() {
    local body
    body="$(curl --silent --fail --max-time 2 "$1" 2>/dev/null)" || return 1
    [[ $body == *"${2-}"* ]]
}
