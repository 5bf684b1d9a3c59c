# Kafka: one KRaft node, broker and controller in one process.
#
# Beside the listener that everybody uses it has three with a lock: KAFKA_TLS_PORT asks for a certificate of the client's
# (mutual TLS), KAFKA_SASL_PORT for a login over TLS (PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER), KAFKA_SCRAM_PORT for
# one without TLS (SCRAM-SHA-256). The user is KAFKA_USER; tokens are checked against the key kafka/tls/token.key, and whoever
# came in with one has to show the next one before it expires. Without TLS the password is asked for every five seconds.
#
# These may do everything, as may whoever comes in by the first listener. Anybody else may do what they were allowed by an ACL.
# shellcheck shell=bash

# Who may come in by the listeners with a lock; the certificate of clients is made out to the same name.
KAFKA_USER=afterwrite
KAFKA_PASSWORD=stack-s3cret
# Whose tokens may do everything.
KAFKA_TOKEN_USER=afterwrite-client

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
    tls_folder "$dir/tls" kafka_certificates kafka_token_key
    KAFKA_JAVA+=("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls=file://$dir/tls/jwks.json")
    {
        cat "$NATIVE_DIR/conf/server.properties"
        printf '\n# The place of this stack.\n'
        printf 'listeners=HOST://127.0.0.1:%s,CONTROLLER://127.0.0.1:%s,' "$KAFKA_PORT" "$KAFKA_CONTROLLER_PORT"
        printf 'TLS://127.0.0.1:%s,SASL://127.0.0.1:%s,SCRAM://127.0.0.1:%s\n' "$KAFKA_TLS_PORT" "$KAFKA_SASL_PORT" "$KAFKA_SCRAM_PORT"
        printf 'advertised.listeners=HOST://127.0.0.1:%s,' "$KAFKA_PORT"
        printf 'TLS://localhost:%s,SASL://localhost:%s,SCRAM://localhost:%s\n' "$KAFKA_TLS_PORT" "$KAFKA_SASL_PORT" "$KAFKA_SCRAM_PORT"
        printf 'inter.broker.listener.name=HOST\n'
        printf 'controller.quorum.voters=1@127.0.0.1:%s\n' "$KAFKA_CONTROLLER_PORT"
        printf 'log.dirs=%s/data\n' "$dir"
        kafka_locks "$dir/tls"
    } >"$properties"
    spawn kafka bash -c "$KAFKA_START" kafka "$dir/data/meta.properties" "$properties" "$KAFKA_USER" "$KAFKA_PASSWORD" \
        "${KAFKA_JAVA[@]}"
}

# What the listeners with a lock ask for.
kafka_locks() {
    local tls=$1 listener login=org.apache.kafka.common.security
    printf 'listener.security.protocol.map=CONTROLLER:PLAINTEXT,HOST:PLAINTEXT,TLS:SSL,SASL:SASL_SSL,SCRAM:SASL_PLAINTEXT\n'
    for listener in tls sasl; do
        printf 'listener.name.%s.ssl.keystore.type=PEM\nlistener.name.%s.ssl.keystore.location=%s/keystore.pem\n' \
            "$listener" "$listener" "$tls"
        printf 'listener.name.%s.ssl.truststore.type=PEM\nlistener.name.%s.ssl.truststore.location=%s/ca.pem\n' \
            "$listener" "$listener" "$tls"
    done
    printf 'listener.name.tls.ssl.client.auth=required\n'
    printf 'listener.name.sasl.sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER\n'
    printf 'listener.name.scram.sasl.enabled.mechanisms=SCRAM-SHA-256\n'
    printf 'listener.name.sasl.plain.sasl.jaas.config=%s.plain.PlainLoginModule required user_%s="%s";\n' \
        "$login" "$KAFKA_USER" "$KAFKA_PASSWORD"
    for listener in sasl.scram-sha-256 sasl.scram-sha-512 scram.scram-sha-256; do
        printf 'listener.name.%s.sasl.jaas.config=%s.scram.ScramLoginModule required;\n' "$listener" "$login"
    done
    printf 'listener.name.sasl.oauthbearer.sasl.jaas.config=%s.oauthbearer.OAuthBearerLoginModule required;\n' "$login"
    printf 'listener.name.sasl.oauthbearer.sasl.server.callback.handler.class=%s.oauthbearer.OAuthBearerValidatorCallbackHandler\n' "$login"
    printf 'listener.name.sasl.oauthbearer.sasl.oauthbearer.jwks.endpoint.url=file://%s/jwks.json\n' "$tls"
    printf 'listener.name.sasl.oauthbearer.sasl.oauthbearer.expected.audience=kafka\n'
    # Without it a connection outlives its token, and a password that was changed.
    printf 'listener.name.sasl.oauthbearer.connections.max.reauth.ms=3600000\n'
    printf 'listener.name.scram.scram-sha-256.connections.max.reauth.ms=5000\n'
    printf 'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n'
    printf 'super.users=User:ANONYMOUS;User:%s;User:CN=%s;User:%s\n' "$KAFKA_USER" "$KAFKA_USER" "$KAFKA_TOKEN_USER"
}

# The broker's certificate with its key in one file, as Java wants it, and one for a client.
kafka_certificates() {
    tls_sign server /CN=localhost DNS:localhost
    cat server.key server.pem >keystore.pem
    tls_sign client "/CN=$KAFKA_USER"
}

# The key that signs tokens, and the set of keys (RFC 7517) by which the broker checks them.
kafka_token_key() {
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out token.key
    local modulus
    modulus="$(openssl rsa -in token.key -noout -modulus)"
    modulus="$(printf '%b' "$(sed 's/../\\x&/g' <<<"${modulus#*=}")" | base64 -w0 | tr '+/' '-_' | tr -d '=')"
    printf '{"keys":[{"kty":"RSA","use":"sig","alg":"RS256","kid":"stack","e":"AQAB","n":"%s"}]}\n' "$modulus" >jwks.json
}

# Formats the storage when it is new, then becomes the broker: the pid stays the same. Runs beside the other services'
# start, so that a first start does not wait for it. The arguments: meta.properties, server.properties, user, password, java….
# A fixed cluster id: this cluster has one node, and nobody else's can join it.
# shellcheck disable=SC2016 # expanded by the shell that runs it
KAFKA_START='
    meta=$1 properties=$2 user=$3 password=$4 users=()
    shift 4
    if [[ ! -f $meta ]]; then
        for mechanism in SCRAM-SHA-256 SCRAM-SHA-512; do
            users+=(--add-scram "$mechanism=[name=$user,password=$password]")
        done
        "$@" kafka.tools.StorageTool format --cluster-id YWZ0ZXJ3cml0ZS1zdGFjaw --config "$properties" "${users[@]}" || exit 1
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
