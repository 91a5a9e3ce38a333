#!/bin/sh
# Sees to it that the servers of the tests and of the demo are installed: PostgreSQL, RabbitMQ. With `tests` as its argument also what
# the tests' consumers in other languages need: pika, Celery, Node and amqplib.
#
# As root on Debian or Ubuntu it installs what is missing. Nothing is started, no cluster is created, and no service is left
# enabled that was not: the tests start servers of their own. Anywhere else it says what to install, and goes on.
set -u

missing() {
    ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || command -v postgres >/dev/null || echo postgresql
    ls /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server >/dev/null 2>&1 ||
        command -v rabbitmq-server >/dev/null || echo rabbitmq-server
    command -v setpriv >/dev/null && command -v flock >/dev/null || echo util-linux
    [ "$1" = tests ] || return 0
    /usr/bin/python3 -c 'import pika' 2>/dev/null || echo python3-pika
    /usr/bin/python3 -c 'import celery' 2>/dev/null || echo python3-celery
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
}

# By npm, into the build's own folder.
amqplib() {
    folder=$(dirname "$0")/../../target/consumers
    [ "$1" != tests ] || [ -d "$folder/node_modules/amqplib" ] && return 0
    mkdir -p "$folder" && npm install --silent --no-audit --no-fund --prefix "$folder" amqplib@0.10.9 >/dev/null ||
        echo "npm could not install amqplib: the tests that need it will fail." >&2
}

packages=$(missing "${1:-}")
if [ -z "$packages" ]; then
    amqplib "${1:-}"
    exit 0
fi

if ! command -v apt-get >/dev/null || [ "$(id -u)" != 0 ]; then
    echo "Missing: $(echo $packages). The tests that need it will fail until it is there." >&2
    if command -v apt-get >/dev/null; then
        echo "Install it, as root: apt-get install --no-install-recommends $(echo $packages)" >&2
        echo "(or run this script as root: it leaves no service running)" >&2
    else
        echo "Install by your system's means, so that these are on the PATH:" >&2
        echo "  PostgreSQL 10 or newer (postgres, initdb); RabbitMQ 3.8 or newer (rabbitmq-server, rabbitmqctl)" >&2
        echo "  with its management plugin, and Erlang's epmd; setpriv and flock of util-linux; for the tests" >&2
        echo "  also Python with pika and Celery, and Node with npm" >&2
    fi
    exit 0
fi

policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/towpath-tests.conf
kept=$(mktemp -d)

# Links by which services are started at boot.
boot_links() {
    find /etc/systemd/system /etc/rc?.d -type l 2>/dev/null | sort
}

restore() {
    rm -f "$policy" "$no_cluster"
    [ -e "$kept/policy-rc.d" ] && mv "$kept/policy-rc.d" "$policy"
    rm -rf "$kept"
}
trap restore EXIT
trap 'exit 1' INT TERM HUP

boot_links >"$kept/before"
# "Action forbidden by policy": a package's scripts then start nothing. One that is there is put back.
[ -e "$policy" ] && mv "$policy" "$kept/policy-rc.d"
printf '#!/bin/sh\nexit 101\n' >"$policy"
chmod 755 "$policy"
mkdir -p "${no_cluster%/*}"
echo 'create_main_cluster = false' >"$no_cluster"

install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends --no-upgrade $packages >"$kept/log" 2>&1
}
echo "Installing $(echo $packages) (nothing of it is started) …" >&2
if ! install; then
    apt-get update -qq >"$kept/log" 2>&1
    install || { cat "$kept/log" >&2; echo "apt-get could not install $(echo $packages)" >&2; exit 1; }
fi

# What the packages enabled for the next boot is disabled again.
boot_links >"$kept/after"
comm -13 "$kept/before" "$kept/after" | sed -E 's,.*/rc.\.d/[SK]..,sysv ,; s,.*/,systemd ,' | sort -u |
    while read -r system service; do
        case $system in
        sysv) update-rc.d "$service" disable ;;
        systemd) systemctl disable "$service" || DPKG_MAINTSCRIPT_PACKAGE=$service deb-systemd-helper disable "$service" ;;
        esac >/dev/null 2>&1
    done
command -v systemctl >/dev/null && systemctl daemon-reload >/dev/null 2>&1
amqplib "${1:-}"
exit 0
