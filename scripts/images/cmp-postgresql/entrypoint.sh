#!/bin/bash
# Starts PostgreSQL on the data directory, which it makes ready the first time.
#
#   DBPORT    the port to listen on, each time anew (default 5432)
#   DBUSER    a user to create the first time; none when it is empty
#   DBPASSWD  the user's password (default: the user's name)
#   DBNAME    the user's database (default: the user's name)
#
# The data directory may be a file system of its own, with lost+found in it: the database stands in a directory below it. It is made under
# another name and takes its own when it is complete, so that a container killed half-way leaves nothing that looks like a database.
set -euo pipefail

data=/var/lib/pgsql/9.6/data
flag=$data/runflg
database=$data/db
fresh=$data/db.new
bin=/usr/lib/postgresql/15/bin
port=${DBPORT:-5432}

fail() {
    echo "entrypoint: $*" >&2
    exit 1
}

as_postgres() {
    setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"
}

# set_option DATABASE NAME VALUE: in place of the line that is there, commented out or not.
set_option() {
    sed -i "s|^#*$2 *=.*|$2 = $3|" "$1/postgresql.conf"
    grep -q "^$2 = " "$1/postgresql.conf" || echo "$2 = $3" >>"$1/postgresql.conf"
}

make_database() {
    rm -rf "$fresh"
    install -d -o postgres -g postgres -m 700 "$fresh"
    as_postgres "$bin/initdb" --pgdata "$fresh" --encoding UTF8 --locale C.UTF-8 --auth-local peer --auth-host scram-sha-256
    cat >"$fresh/pg_hba.conf" <<-'RULES'
		# who may log in: the server's own account from inside, everyone else with a password
		local all postgres peer
		local all all scram-sha-256
		host all all 0.0.0.0/0 scram-sha-256
		host all all ::/0 scram-sha-256
	RULES
    set_option "$fresh" listen_addresses "'*'"
    set_option "$fresh" port "$port"
    [ -z "${DBUSER:-}" ] || make_user
    sync -f "$fresh"
    mv "$fresh" "$database"
}

# With the server up for a moment, on its local socket only.
make_user() {
    as_postgres "$bin/pg_ctl" --pgdata "$fresh" --wait --options "-c listen_addresses=''" start
    as_postgres psql --quiet --no-psqlrc --port "$port" --dbname postgres --set ON_ERROR_STOP=1 \
        --set user="$DBUSER" --set password="${DBPASSWD:-$DBUSER}" --set name="${DBNAME:-$DBUSER}" <<-'SQL'
		SELECT format('CREATE ROLE %I LOGIN', :'user') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'user') \gexec
		ALTER ROLE :"user" PASSWORD :'password';
		SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'user') WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
	SQL
    as_postgres "$bin/pg_ctl" --pgdata "$fresh" --wait --mode fast stop
}

if ! [[ $port =~ ^[1-9][0-9]{0,4}$ ]] || [ "$port" -gt 65535 ]; then
    fail "DBPORT is '$port', which is not a port number"
fi
mkdir -p "$data"
# The server's account must be able to pass through.
chmod a+x "$data"
if [ ! -e "$flag" ] && [ ! -d "$database" ]; then
    make_database
fi
[ -s "$database/PG_VERSION" ] || fail "$flag is there, but no database beside it: restore a backup, or remove $flag to begin with an empty one"
touch "$flag"
set_option "$database" port "$port"
# In place of this shell, so that it gets the container's signals itself.
exec setpriv --reuid=postgres --regid=postgres --init-groups -- "$bin/postgres" -D "$database"
