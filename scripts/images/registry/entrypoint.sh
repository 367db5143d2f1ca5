#!/bin/sh
# Runs the registry as the user that Debian's package made. It trusts the tokens of the platform, whose certificate comes in the environment; without
# one it does not start, because it would let everybody do everything.
set -eu

: "${XTAO_REGISTRY_CERTIFICATE:?is missing: install the registry with: xtao registry install}"
user=docker-registry
data=/var/lib/registry
bundle=/run/xtao-registry.crt
printf '%s' "$XTAO_REGISTRY_CERTIFICATE" >"$bundle"

mkdir -p "$data"
[ "$(stat -c %U "$data")" = "$user" ] || chown "$user:" "$data"

export REGISTRY_AUTH=token REGISTRY_AUTH_TOKEN_ROOTCERTBUNDLE="$bundle"
exec setpriv --reuid "$user" --regid "$(id -g "$user")" --clear-groups docker-registry serve /etc/docker/registry/config.yml
