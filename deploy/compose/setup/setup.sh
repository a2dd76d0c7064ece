#!/bin/sh
# Creates the secrets of the stack and hands each to the one service that uses it.
#
#   setup create                create what is missing, give every volume to its owner (runs at each start)
#   setup env [ENDPOINT]        print what an application needs in its environment: eval "$(... setup env)"
#   setup password              print the first password of Grafana's user admin
#   setup gateway-token         print the token of the read-only gateway
#   setup rotate                make new OTLP and gateway tokens; the ones before stay valid until the next time
#   setup rotate-id-key         make a new key for pseudonyms; the same person gets another one from then on
#   setup store SERVICE NAME    keep standard input as the file /run/secrets/NAME of alertmanager or collector
#   setup backup                write everything that is kept, secrets too, to standard output as a tar archive
#   setup restore               put back what backup wrote, from standard input; what is there now is lost
set -eu
umask 077
new='' header=''
trap 'rm -f "$new" "$header"' EXIT  # what was not finished

ALL=/secrets/all  # the only place where secrets are made; the volumes of the services hold copies
COLLECTOR=10001
GATEWAY=101
GRAFANA=472
APP=10002
PROMETHEUS=65534
LOKI=10001
TEMPO=10001
ALERTMANAGER=65534

random() {  # random BYTES
  head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

# Puts standard input into a file, whole or not at all, readable by its owner only. Owned last: root lacks FOWNER here.
place() {  # place FILE UID
  new=$(mktemp "${1%/*}/.new.XXXXXX")
  cat > "$new"
  if [ -f "$1" ] && cmp -s "$new" "$1" && [ "$(stat -c %u:%a "$1")" = "$2:400" ]; then
    rm "$new"  # unchanged files are left alone: services watch them
  else
    chmod 0400 "$new"
    chown "$2:$2" "$new"
    mv -f "$new" "$1"
  fi
}

# Creates a secret unless it is there; of two that start together, one wins.
keep() {  # keep NAME
  [ -s "$ALL/$1" ] && return
  [ -e "$ALL/$1" ] && [ ! -s "$ALL/$1" ] && rm -f "$ALL/$1"  # the machine stopped while it was made
  new=$(mktemp "$ALL/.new.XXXXXX")
  cat > "$new"
  chmod 0400 "$new"
  ln "$new" "$ALL/$1" 2>/dev/null || true
  rm "$new"
}

newest() {  # newest NAME
  head -n 1 "$ALL/$1"
}

exports() {  # exports ENDPOINT
  printf "export OTEL_EXPORTER_OTLP_ENDPOINT='%s'\n" "$1"
  printf "export OTEL_EXPORTER_OTLP_PROTOCOL='http/protobuf'\n"
  printf "export OTEL_EXPORTER_OTLP_HEADERS='authorization=Bearer%%20%s'\n" "$(newest otlp_tokens)"
  printf "export STAGELIGHT_ID_KEY='%s'\n" "$(cat $ALL/id_key)"
}

make_missing() {
  { random 32; echo; } | keep otlp_tokens
  { random 32; echo; } | keep gateway_tokens
  random 32 | keep id_key
  random 16 | keep grafana_admin_password
  random 32 | keep grafana_secret_key
}

hand_out() {
  place /secrets/collector/otlp_tokens $COLLECTOR < $ALL/otlp_tokens
  place /secrets/collector/id_key $COLLECTOR < $ALL/id_key
  key_id=$(printf 'stagelight key id:%s' "$(cat $ALL/id_key)" | sha256sum | cut -c 1-8)
  printf %s "$key_id" | place /secrets/collector/id_key_id $COLLECTOR
  sed 's/.*/"Bearer &" 1;/' $ALL/gateway_tokens | place /secrets/gateway/gateway_tokens $GATEWAY
  place /secrets/grafana/admin_password $GRAFANA < $ALL/grafana_admin_password
  place /secrets/grafana/secret_key $GRAFANA < $ALL/grafana_secret_key
  exports http://collector:4318 | place /secrets/app/environment $APP
  newest otlp_tokens | place /secrets/app/otlp_token $APP
  newest gateway_tokens | place /secrets/app/gateway_token $APP
  place /secrets/app/id_key $APP < $ALL/id_key
  hand_out_stored collector $COLLECTOR
  hand_out_stored alertmanager $ALERTMANAGER
}

hand_out_stored() {  # hand_out_stored SERVICE UID: what `store` was given for it
  for file in "$ALL/$1".*; do
    [ -e "$file" ] && place "/secrets/$1/${file#"$ALL/$1".}" "$2" < "$file"
  done
  return 0
}

store() {  # store SERVICE NAME
  case "$1" in
    alertmanager | collector) ;;
    *) refuse "store: service '$1' is not accepted; accepted: alertmanager, collector" ;;
  esac
  case "$2" in
    otlp_tokens | id_key | id_key_id) refuse "store: name '$2' is taken by a secret that setup makes itself" ;;
    '' | *[!a-z0-9_]*) refuse "store: name '$2' is not accepted; accepted: lower-case letters, digits and _" ;;
  esac
  create
  place "$ALL/$1.$2" 0
  hand_out
}

each_volume() {  # each_volume COMMAND: called with the owner and the folder of every data volume
  "$1" $COLLECTOR /data/collector
  "$1" $PROMETHEUS /data/prometheus
  "$1" $LOKI /data/loki
  "$1" $TEMPO /data/tempo
  "$1" $ALERTMANAGER /data/alertmanager
  "$1" $GRAFANA /data/grafana
}

own() {  # the folder only, so that starting takes no longer when much is stored
  [ "$(stat -c %u "$2")" = "$1" ] || chown "$1:$1" "$2"
}

own_whole() {
  chown -R "$1:$1" "$2"
}

empty() {
  find "$1" -mindepth 1 -maxdepth 1 -exec rm -rf {} +
}

take_back() {
  chown 0:0 "$2"  # tar sets modes, which root without FOWNER may do only to what it owns
  empty "$2"
}

create() {
  make_missing
  hand_out
  each_volume own
}

backup() {
  cd /
  tar -c -f - "${ALL#/}" data/*
}

restore() {
  header=$(mktemp /secrets/app/.new.XXXXXX)
  dd bs=1 count=512 of="$header" 2>/dev/null
  name=$(head -c 12 "$header")
  if [ "$name" != "${ALL#/}/" ]; then
    refuse 'restore: standard input is no archive that setup backup wrote; nothing was changed'
  fi
  each_volume take_back
  empty $ALL
  cat "$header" - | tar -x -o -p -C / -f - || broken
  each_volume own_whole
  hand_out
}

broken() {
  {
    echo 'setup: restore: the archive is damaged or not whole; what it lacks is lost here.'
    echo 'Restore a whole one before you start anything (tar -tf shows whether it is).'
  } >&2
  exit 1
}

rotate() {  # rotate NAME: the new token first, then the one that was newest
  { random 32; echo; newest "$1"; } | place "$ALL/$1" 0
}

published() {
  case "$BIND" in
    0.0.0.0 | '[::]' | ::) host=127.0.0.1 ;;  # every address of this machine, so also this one
    '['*) host=$BIND ;;
    *:*) host="[$BIND]" ;;
    *) host=$BIND ;;
  esac
  printf 'http://%s:%s' "$host" "$OTLP_HTTP_PORT"
}

is_address() {
  printf %s "$1" | tr '\n' ' ' | grep -Eq '^https?://[][A-Za-z0-9.:_-]+$'
}

refuse() {
  echo "setup: $1" >&2
  exit 2
}

verb=${1:-create}
case "$verb" in
  create)
    create
    echo 'The secrets are in place.'
    ;;
  env)
    endpoint=${2:-$(published)}
    is_address "$endpoint" || refuse "env: '$endpoint' is not accepted; accepted: an address like http://collector:4318"
    create
    exports "$endpoint"
    ;;
  password)
    create
    cat $ALL/grafana_admin_password
    echo
    ;;
  gateway-token)
    create
    newest gateway_tokens
    ;;
  rotate)
    create
    rotate otlp_tokens
    rotate gateway_tokens
    hand_out
    {
      echo 'New tokens are valid; the ones before stay valid until you rotate again.'
      echo 'The Collector reads them by itself. Let the gateway do so: docker compose kill -s HUP gateway'
      echo 'Then give applications the new token: docker compose run --rm setup env'
    } >&2
    ;;
  rotate-id-key)
    create
    random 32 | place $ALL/id_key 0
    hand_out
    {
      echo 'The key of the pseudonyms is new. Let the Collector read it: docker compose restart collector'
      echo 'Then give applications the new key: docker compose run --rm setup env'
    } >&2
    ;;
  store)
    store "${2:-}" "${3:-}"
    echo "Kept as /run/secrets/$3 of $2, which reads it when it starts: docker compose restart $2" >&2
    ;;
  backup)
    create
    backup
    ;;
  restore)
    restore
    echo 'Everything is as it was when the backup was made.' >&2
    ;;
  *)
    refuse "'$verb' is not accepted; accepted:
  create, env, password, gateway-token, rotate, rotate-id-key, store, backup, restore"
    ;;
esac
