# Certificates of a stack's own services, of authorities that nobody but this stack knows.
# shellcheck shell=bash

OPENSSL_NEW=(req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650)

# Makes a folder with an authority (ca.pem, ca.key) and a certificate for "localhost" (server.pem, server.key) once; further
# arguments are functions that add to it, called in it. A rename publishes it, so what was cut off is made anew.
tls_folder() {
    local folder=$1 addition
    shift
    [[ ! -d $folder ]] || return 0
    command -v openssl >/dev/null || fail "openssl is missing; run $NATIVE_DIR/setup"
    rm -rf -- "$folder.fresh"
    mkdir -- "$folder.fresh"
    (
        cd -- "$folder.fresh"
        openssl "${OPENSSL_NEW[@]}" -subj "/CN=authority of an afterwrite stack" -keyout ca.key -out ca.pem
        for addition in "$@"; do "$addition"; done
    ) 2>"$folder.fresh/log" || fail "openssl made no certificates: see $folder.fresh/log"
    mv -- "$folder.fresh" "$folder"
}

# Signs a certificate NAME.pem with the key NAME.key for a subject, and for alternative names where there are some.
tls_sign() {
    local name=$1 subject=$2 names=()
    [[ -z ${3-} ]] || names=(-addext "subjectAltName=$3")
    openssl "${OPENSSL_NEW[@]}" -CA ca.pem -CAkey ca.key -subj "$subject" -addext basicConstraints=critical,CA:FALSE \
        "${names[@]}" -keyout "$name.key" -out "$name.pem"
}
