# The schema registry: Apicurio's in-memory edition, with its H2 database in a file of the stack. So schemas and their
# ids survive `stop`, `kill` and `start`; without that, a restarted registry would give old ids to new schemas, while
# converters and decoders remember the old ones. WRITE_DELAY=0: what was answered is on disk.
#
# It speaks TLS too, on a port of its own, with a certificate of an authority that nobody but this stack knows.
# shellcheck shell=bash

registry_launch() {
    local dir="$STACK_DIR/registry" options memory
    mkdir -p -- "$dir"
    mapfile -t options < <(java_options)
    mapfile -t memory < <(conf_words registry.env JAVA_OPTS_APPEND)
    tls_folder "$dir/tls" registry_server_certificate
    spawn registry env "REGISTRY_DATASOURCE_URL=jdbc:h2:file:$dir/registry;WRITE_DELAY=0" \
        java "${options[@]}" "${memory[@]}" -Dquarkus.http.host=127.0.0.1 "-Dquarkus.http.port=$REGISTRY_PORT" \
        "-Dquarkus.http.ssl-port=$REGISTRY_TLS_PORT" "-Dquarkus.http.ssl.certificate.files=$dir/tls/server.pem" \
        "-Dquarkus.http.ssl.certificate.key-files=$dir/tls/server.key" \
        -jar "$(parts_dir)"/registry/apicurio-registry-app-*-runner.jar
}

registry_server_certificate() { tls_sign server /CN=localhost DNS:localhost,IP:127.0.0.1; }

registry_ready() { http_answers "http://127.0.0.1:$REGISTRY_PORT/apis/ccompat/v7/subjects" '['; }
