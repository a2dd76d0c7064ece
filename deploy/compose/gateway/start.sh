#!/bin/sh
# Starts nginx with the container engine's resolver, so that it finds back ends that were started again.
set -eu
awk '
  $1 == "nameserver" { print "resolver " ($2 ~ /:/ ? "[" $2 "]" : $2) " valid=5s ipv6=off;"; exit }
' /etc/resolv.conf > /tmp/resolver.conf
exec nginx -e stderr -c /etc/gateway/nginx.conf -g 'daemon off;'
