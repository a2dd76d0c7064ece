#!/bin/sh
# Looks after the Collector, whose image has no shell: while it does not answer, corrupt queue files are set aside, so
# that its next start succeeds.
set -u
trap 'exit 0' TERM INT

while :; do
  timeout 5 wget -q -O /dev/null http://collector:13133/ || sh /etc/collector-health/queue.sh /var/lib/otelcol/queue
  sleep 5 &
  wait $!
done
