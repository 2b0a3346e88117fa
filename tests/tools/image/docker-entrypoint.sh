#!/bin/sh
# Stands in for the entrypoint of the official image and of supabase/postgres: the same variables, the same order,
# a server of its own while it fills a new cluster, and roles and schemas that are there from the start.
set -eu

fill() {
    "$@" -c listen_addresses='' &
    server=$!
    export PGPASSWORD="$POSTGRES_PASSWORD" PGHOST=/var/run/postgresql PGUSER="$POSTGRES_USER" PGDATABASE=postgres
    until psql --command 'select 1' >/dev/null 2>&1; do
        kill -0 "$server"
        sleep 0.05
    done
    for file in /hosted/*.sql /docker-entrypoint-initdb.d/*.sql; do
        if [ -e "$file" ]; then psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --file "$file"; fi
    done
    unset PGPASSWORD PGHOST PGUSER PGDATABASE
    kill -INT "$server"
    wait "$server"
}

if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /var/run/postgresql
    chown -R postgres "$PGDATA" /var/run/postgresql
    exec setpriv --reuid postgres --regid postgres --clear-groups -- "$0" "$@"
fi
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    (umask 077 && printf '%s\n' "${POSTGRES_PASSWORD:?}" >/tmp/password)
    # shellcheck disable=SC2086 # the variable holds words, as with the official one
    initdb --pgdata "$PGDATA" --username "$POSTGRES_USER" --pwfile /tmp/password ${POSTGRES_INITDB_ARGS-}
    rm /tmp/password
    fill "$@"
fi
exec "$@"
