# The mail catcher is a command of afterwrite itself: it accepts every mail and writes each into a file.
# shellcheck shell=bash

smtp_mailbox() { printf '%s/mailbox' "$STACK_DIR"; }

smtp_binary() {
    local candidate
    if [[ -n ${AFTERWRITE_BIN-} ]]; then
        [[ -x $AFTERWRITE_BIN ]] || fail "AFTERWRITE_BIN=$AFTERWRITE_BIN is no program"
        realpath -- "$AFTERWRITE_BIN"
        return
    fi
    for candidate in "$REPO_DIR/target/debug/afterwrite" "$REPO_DIR/target/release/afterwrite"; do
        if [[ -x $candidate ]]; then
            printf '%s' "$candidate"
            return
        fi
    done
    fail "the mail catcher is a command of afterwrite, which is not built yet: run 'cargo build' in $REPO_DIR, or set AFTERWRITE_BIN"
}

smtp_launch() {
    local binary
    binary="$(smtp_binary)"
    mkdir -p -- "$(smtp_mailbox)"
    spawn smtp "$binary" mail-catcher --listen "127.0.0.1:$SMTP_PORT" --dir "$(smtp_mailbox)"
}

# Ready when it greets.
smtp_ready() {
    local greeting
    # shellcheck disable=SC2016 # expanded by the inner shell
    greeting="$(timeout 2 bash -c 'exec 3<>"/dev/tcp/127.0.0.1/$1" && head -c 3 <&3' probe "$SMTP_PORT" 2>/dev/null)" || return 1
    [[ $greeting == 220 ]]
}
