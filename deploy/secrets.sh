#!/bin/sh
# Makes the secrets that compose.yaml reads, each at random, into deploy/secrets/. A secret that is there is left as it is.
#
# The folder is for its owner alone. The files in it can be read by all, because every container has a user of its own and Compose hands a
# file over with the permissions that it has.
set -eu
umask 077
cd "$(dirname "$0")"
mkdir -p secrets

random() { head -c 32 /dev/urandom | base64; }
password() { random | tr -d '+/=\n'; }
keep() { # NAME: standard input becomes the secret of that name, unless there is one
  if [ -s "secrets/$1" ]; then
    echo "$1 is there already"
  else
    cat > "secrets/$1"
    chmod 444 "secrets/$1"
    echo "$1 is made"
  fi
}

random | keep master.key
url() { printf 'postgresql+pg8000://%s:%s@postgres:5432/finrisk\n' "$1" "$(cat "secrets/$2")"; }
password | keep postgres-password
password | keep owner-password
password | keep service-password
url finrisk_owner owner-password | keep owner-store-url
url finrisk_service service-password | keep store-url
password | keep grafana-password
# Prometheus asks with a key of the service, which only the service can make; see the head of compose.yaml.
[ -e secrets/prometheus-key ] || : > secrets/prometheus-key
chmod 644 secrets/prometheus-key
