#!/bin/sh
# Makes the sample shop in a database that looks like a hosted project: the real
# CLI pushes the applied migrations, so that their history rows are the CLI's
# own, then the rows are loaded.
#
# usage: load-shop.sh PSQL SUPABASE.JS HOST:PORT DATABASE
#
#   PSQL         psql, of the server's major or newer
#   SUPABASE.JS  dist/supabase.js of the npm package, major 3
#   DATABASE     made by hosted/roles.sql and hosted/platform.sql, and empty otherwise
#
# It signs in as postgres. The password comes from PGPASSWORD; PGSSLMODE is
# honored, and `disable` when it is not set.
set -eu

if [ "$#" -ne 4 ]; then
    sed -n 's/^# usage: /usage: /p' "$0" >&2
    exit 2
fi
psql=$1 supabase=$2 address=$3 database=$4
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
project=$here/../../supabase
host=${address%:*}
port=${address##*:}
PGSSLMODE=${PGSSLMODE:-disable}
export PGSSLMODE

work=$(mktemp -d)
trap 'rm -rf -- "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir -- "$work/empty" "$work/home" "$work/copy" "$work/copy/supabase" "$work/copy/supabase/migrations"
cp -- "$project/config.toml" "$work/copy/supabase/"
while read -r version; do
    cp -- "$project/migrations/${version}"_*.sql "$work/copy/supabase/migrations/"
done <"$here/applied.txt"

# The program loads .env files of the folder that it runs in, so that is an
# empty one; with a home of its own it leaves nothing behind.
(
    cd -- "$work/empty"
    HOME=$work/home SUPABASE_TELEMETRY_DISABLED=1 SUPABASE_NO_UPDATE_NOTIFIER=1 \
        node "$supabase" db push --workdir "$work/copy" --skip-vault --yes --agent no \
        "--remote=postgresql://postgres@$host:$port/$database?sslmode=$PGSSLMODE"
) >"$work/push.log" 2>&1 || {
    cat -- "$work/push.log" >&2
    exit 1
}

"$psql" --no-psqlrc --quiet --no-password --output /dev/null --set ON_ERROR_STOP=1 \
    --host "$host" --port "$port" --username postgres --dbname "$database" --file "$here/shop.sql"
