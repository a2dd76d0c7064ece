#!/bin/sh
# Deletes log records that match a query, from inside: no published port can.
#
#   erase QUERY START [END]     from START to END (default: now), as seconds since 1970 or like 2026-11-01T00:00:00Z
#   erase list                  the requests so far, and which are done
set -eu
LOKI=http://loki:3100/loki/api/v1/delete

refuse() {
  echo "erase: $1" >&2
  exit 2
}

encoded() {
  printf %s "$1" | od -An -v -tx1 | tr -d ' \n' | sed 's/../%&/g'
}

is_time() {
  printf %s "$1" | tr '\n' ' ' | grep -Eq '^([0-9]{9,11}|[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(Z|[+-][0-9]{2}:[0-9]{2}))$'
}

case "${1:-}" in
  list)
    wget -q -O - "$LOKI"
    echo
    exit
    ;;
  '{'*) ;;
  *) refuse "'${1:-}' is not accepted; accepted: list, or a LogQL query like '{service_name=\"shop\"} |= \"order 17\"'" ;;
esac

start=${2:-}
end=${3:-$(date +%s)}
for moment in "$start" "$end"; do
  is_time "$moment" || refuse "time '$moment' is not accepted; accepted: 1793491200 or 2026-11-01T00:00:00Z"
done
wget -q -O - --post-data '' "$LOKI?query=$(encoded "$1")&start=$(encoded "$start")&end=$(encoded "$end")" ||
  refuse "Loki refused $1 from $start to $end; its log says why: docker compose logs --tail 20 loki"
echo "Asked Loki to delete $1 from $start to $end. Progress: docker compose run --rm erase list"
