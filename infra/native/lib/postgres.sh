# Postgres: a cluster of its own, never the distribution's. It refuses to run as root, so root hands it to another user.
# shellcheck shell=bash

# Not "afterwrite": a role named like the schema would have its unqualified tables made in that schema.
PG_USER=waitlist_owner
PG_DATABASE=waitlist
PG_ASKED=asked_for_a_password
# Whom root runs it as: the user of the distribution's package, or where none was installed, the one without rights.
if [[ -z ${PG_SYSTEM_USER-} ]]; then
    PG_SYSTEM_USER=postgres
    id -u postgres >/dev/null 2>&1 || PG_SYSTEM_USER=nobody
fi

postgres_url() { printf 'postgres://%s:%s@127.0.0.1:%s/%s' "$PG_USER" "$PG_USER" "$PG_PORT" "$PG_DATABASE"; }

# Makes PG_BIN the directory of the programs, once a command.
postgres_find() {
    [[ -z ${PG_FOUND-} ]] || return 0
    PG_BIN="$(postgres_bin)" || fail "Postgres cannot be started; run $NATIVE_DIR/setup"
    PG_FOUND=1
}

# The words that put a command under the right user; empty for a normal user, who runs the cluster himself.
postgres_user_words() {
    if ((EUID == 0)); then
        printf '%s\n' setpriv "--reuid=$PG_SYSTEM_USER" "--regid=$(id -g "$PG_SYSTEM_USER")" --clear-groups --no-new-privs
    fi
}

as_postgres() {
    local words
    mapfile -t words < <(postgres_user_words)
    (cd / && "${words[@]}" "$@")
}

# Root's home is closed to other users, and a clone may lie there: then the cluster lies in /var/tmp, under a name made
# from STACK_DIR, and `down --wipe` deletes it there.
postgres_dir() {
    local ancestor=$STACK_DIR
    while [[ ! -d $ancestor ]]; do ancestor="$(dirname -- "$ancestor")"; done
    if ((EUID != 0)) || as_postgres test -x "$ancestor"; then
        printf '%s/postgres' "$STACK_DIR"
    else
        printf '/var/tmp/afterwrite-postgres-%s' "$(printf '%s' "$STACK_DIR" | sha256sum | head -c 12)"
    fi
}

postgres_launch() {
    local dir bin sockets words
    dir="$(postgres_dir)"
    postgres_find
    bin=$PG_BIN
    if ((EUID == 0)) && ! id -u "$PG_SYSTEM_USER" >/dev/null 2>&1; then
        fail "there is no user $PG_SYSTEM_USER to run Postgres as; set PG_SYSTEM_USER"
    fi
    as_postgres test -x "$bin/postgres" ||
        fail "$PG_SYSTEM_USER cannot run $bin/postgres; set STACK_CACHE to a directory that all users can enter, or PG_BIN"
    say "this is $("$bin/postgres" --version), of $bin"
    if [[ $dir != "$STACK_DIR/postgres" ]]; then
        say "$PG_SYSTEM_USER cannot enter $STACK_DIR: the Postgres cluster lies in $dir"
    fi
    [[ -f $dir/initialised ]] || postgres_initdb "$dir" "$bin"
    postgres_sweep
    as_postgres tee "$dir/postgresql.conf" <"$NATIVE_DIR/conf/postgresql.conf" >/dev/null
    # The kernel limits the path of a socket to 107 bytes; without one, clients use TCP, as afterwrite does.
    sockets="$dir/sockets"
    ((${#sockets} < 85)) || sockets=""
    mapfile -t words < <(postgres_user_words)
    # Dynamic shared memory as files of the cluster: nothing of a killed server stays behind in /dev/shm.
    spawn postgres "${words[@]}" "$bin/postgres" -D "$dir/data" \
        -c "config_file=$dir/postgresql.conf" -c listen_addresses=127.0.0.1 -c "port=$PG_PORT" \
        -c "unix_socket_directories=$sockets" -c dynamic_shared_memory_type=mmap
}

# A new cluster that trusts every local connection: it serves tests, on the loopback address only. Roles that were granted
# PG_ASKED have to give their password.
postgres_initdb() {
    local dir=$1 bin=$2
    say "making a Postgres cluster in $dir"
    rm -rf -- "$dir"
    mkdir -p -- "$dir/sockets"
    if ((EUID == 0)); then chown -R "$PG_SYSTEM_USER" "$dir"; fi
    chmod 700 "$dir"
    as_postgres "$bin/initdb" --pgdata="$dir/data" --username="$PG_USER" --auth=trust --no-sync \
        --encoding=UTF8 --locale=C.UTF-8 >>"$(log_file postgres)" 2>&1 || show_log_and_fail postgres "could not make its cluster"
    as_postgres sed -i "1i host all +$PG_ASKED samehost scram-sha-256" "$dir/data/pg_hba.conf"
    # Written last: a cluster that was cut off while it was made is made again.
    as_postgres touch "$dir/initialised"
}

postgres_ready() {
    postgres_find
    "$PG_BIN/pg_isready" --quiet --host=127.0.0.1 --port="$PG_PORT" --username="$PG_USER" --dbname=postgres
}

postgres_psql() {
    postgres_find
    PGOPTIONS="-c client_min_messages=warning" "$PG_BIN/psql" --no-psqlrc --quiet --tuples-only --no-align \
        --set=ON_ERROR_STOP=1 --host=127.0.0.1 --port="$PG_PORT" --username="$PG_USER" "$@"
}

# The database and the roles. Tables, grants and the publication are made by whoever installs the application.
postgres_prepare() {
    if [[ -z "$(postgres_psql --dbname=postgres --command="SELECT 1 FROM pg_database WHERE datname = '$PG_DATABASE'")" ]]; then
        postgres_psql --dbname=postgres --command="CREATE DATABASE $PG_DATABASE OWNER $PG_USER"
    fi
    if [[ -z "$(postgres_psql --dbname=postgres --command="SELECT 1 FROM pg_roles WHERE rolname = '$PG_ASKED'")" ]]; then
        postgres_psql --dbname=postgres --command="CREATE ROLE $PG_ASKED NOLOGIN"
    fi
    postgres_psql --dbname="$PG_DATABASE" --file="$REPO_DIR/infra/postgres/roles.sql"
}

# Clears what a killed postmaster leaves: its children end by themselves when they notice, but one in the middle of a
# long query may not; the lock file names a pid that may belong to somebody else by now; and System V memory stays.
postgres_sweep() {
    local data deadline children shared_memory
    running postgres && return 0
    data="$(postgres_dir)/data"
    [[ -d $data ]] || return 0
    deadline=$(($(now_ms) + 3000))
    while children="$(postgres_children "$data")" && [[ -n $children ]]; do
        if (($(now_ms) >= deadline)); then
            # shellcheck disable=SC2086 # one word a pid
            kill -KILL $children 2>/dev/null || true
        fi
        sleep 0.05
    done
    if [[ -f $data/postmaster.pid ]]; then
        shared_memory="$(sed -n '7s/^ *[0-9]* *\([0-9][0-9]*\)$/\1/p' "$data/postmaster.pid")"
        if [[ -n $shared_memory ]]; then
            as_postgres ipcrm -m "$shared_memory" 2>/dev/null || true
        fi
        rm -f -- "$data/postmaster.pid"
    fi
    # The lock beside the socket names the dead pid too.
    rm -f -- "$(postgres_dir)"/sockets/.s.PGSQL.*
}

# Every process of a cluster works in its data directory; so may the shell of somebody who looks around there, which
# runs another program.
postgres_children() {
    local cwd program
    find /proc -maxdepth 2 -path '/proc/[0-9]*/cwd' -lname "$1" 2>/dev/null | while read -r cwd; do
        program="$(readlink -- "${cwd%/cwd}/exe")" || continue
        # A server whose package was updated meanwhile runs a program that was deleted.
        if [[ ${program% (deleted)} == */postgres ]]; then
            printf '%s ' "$(basename -- "${cwd%/cwd}")"
        fi
    done || true
}
