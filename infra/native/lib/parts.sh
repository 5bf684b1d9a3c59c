# The downloaded parts: what pom.xml pins, resolved by Maven into a cache that all stacks and clones of a machine share.
# The cache is named after the content of pom.xml: another version is another directory, never a half-changed one.
# shellcheck shell=bash

parts_dir() {
    local base="$NATIVE_DIR/.cache" hash
    if [[ -n ${STACK_CACHE-} ]]; then
        base="$(realpath -m -- "$STACK_CACHE")"
    elif [[ -n ${XDG_CACHE_HOME-}${HOME-} ]]; then
        base="${XDG_CACHE_HOME:-$HOME/.cache}/afterwrite/native"
    fi
    hash="$(sha256sum <"$NATIVE_DIR/pom.xml")"
    printf '%s/%s' "$base" "${hash:0:16}"
}

# Fills the cache once. Maven writes beside it and a rename publishes it, so a download that was cut off leaves nothing
# that looks complete.
fetch_parts() {
    local parts
    parts="$(parts_dir)"
    [[ ! -d $parts ]] || return 0
    mkdir -p -- "$(dirname -- "$parts")"
    (
        flock 8
        [[ ! -d $parts ]] || exit 0
        fetch_into "$parts"
    ) 8>"$parts.lock" || fail "the parts could not be downloaded"
}

fetch_into() {
    local parts=$1 fresh=$1.fresh began profile
    began=$(now_ms)
    command -v mvn >/dev/null || fail "mvn is missing; run $NATIVE_DIR/setup"
    say "downloading Kafka, Debezium and the registry with Maven (about 240 MB the first time) into $parts"
    rm -rf -- "$fresh"
    for profile in kafka converter; do
        run_maven "$profile" dependency:copy-dependencies "$fresh"
    done
    for profile in debezium registry; do
        run_maven "$profile" dependency:unpack-dependencies "$fresh"
    done
    rm -rf -- "$fresh/markers"
    mv -- "$fresh" "$parts"
    say "downloaded in $(seconds_since "$began") s"
}

# Even a quiet Maven without colours prints escape codes: they are taken out.
run_maven() {
    mvn --batch-mode --quiet --no-transfer-progress --file "$NATIVE_DIR/pom.xml" --activate-profiles "$1" "$2" \
        -Dstack.cache="$3" 2>&1 8>&- | sed $'s/\e\\[[0-9;]*m//g' >&2 || fail "mvn failed for the profile $1"
}

# What all JVMs of the stack get: no performance data in /tmp, temporary files inside the stack.
java_options() { printf '%s\n' -XX:-UsePerfData "-Djava.io.tmpdir=$STACK_DIR/tmp" -Djava.net.preferIPv4Stack=true; }

# Reads NAME="words" of a file in conf/ and prints the words one a line.
conf_words() {
    local words
    words="$(sed -n "s/^$2=\"\(.*\)\"\$/\1/p" "$NATIVE_DIR/conf/$1")"
    [[ -n $words ]] || fail "conf/$1 does not set $2"
    tr ' ' '\n' <<<"$words"
}
