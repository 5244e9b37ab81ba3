#!/bin/sh
# Creates the two roles of the store, once, in a new database: the owner of the tables, who migrates them, and the service, which reads and
# writes rows and owns nothing. PostgreSQL's image runs every script in /docker-entrypoint-initdb.d as the superuser POSTGRES_USER.
#
# On a PostgreSQL of your own: SECRETS=secrets POSTGRES_USER=postgres POSTGRES_DB=finrisk PGHOST=… sh deploy/postgres/roles.sh
set -eu
secrets=${SECRETS:-/run/secrets}

# psql quotes the passwords; in the arguments of a command other users could read them.
OWNER_PASSWORD=$(cat "$secrets/owner-password")
SERVICE_PASSWORD=$(cat "$secrets/service-password")
export OWNER_PASSWORD SERVICE_PASSWORD
psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL'
\getenv owner_password OWNER_PASSWORD
\getenv service_password SERVICE_PASSWORD
begin;
create role finrisk_owner login password :'owner_password';
create role finrisk_service login password :'service_password';
revoke all on database :"DBNAME" from public;
revoke all on schema public from public;
grant connect on database :"DBNAME" to finrisk_owner;
-- `finrisk load-history` copies rows through a temporary table.
grant connect, temporary on database :"DBNAME" to finrisk_service;
grant usage, create on schema public to finrisk_owner;
grant usage on schema public to finrisk_service;
alter default privileges for role finrisk_owner in schema public grant select, insert, update, delete on tables to finrisk_service;
alter default privileges for role finrisk_owner in schema public grant usage on sequences to finrisk_service;
commit;
SQL
