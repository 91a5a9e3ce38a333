# Keeps one broker for all tests of a run; started by shared.rs, which says how it works.
#   KEEPER_EPMD, KEEPER_SERVER  the commands to run
#   KEEPER_LEASES               the file that every user holds a shared lock on
#   KEEPER_STATE                the file that names the broker to the next user
#   KEEPER_FOLDER               the broker's folder
#   KEEPER_RUN                  the process of the whole run
set -u
# While the run goes on, between two tests; after it.
idle_seconds_max=60
idle_seconds_max_after_run=2

$KEEPER_EPMD &
epmd=$!
$KEEPER_SERVER &
server=$!

finish() {
    rm -f "$KEEPER_STATE"
    kill -KILL "$server" "$epmd" 2>/dev/null
    wait
    cd / && rm -rf "$KEEPER_FOLDER"
    exit 0
}
trap finish TERM INT HUP

exec 9>>"$KEEPER_LEASES"
idle=0
while kill -0 "$server" 2>/dev/null; do
    if flock -n -x 9; then
        limit=$idle_seconds_max
        kill -0 "$KEEPER_RUN" 2>/dev/null || limit=$idle_seconds_max_after_run
        # Still holding the lock: who comes now waits, and finds no broker named.
        [ "$idle" -ge "$limit" ] && finish
        flock -u 9
        idle=$((idle + 1))
    else
        idle=0
    fi
    sleep 1
done
finish
