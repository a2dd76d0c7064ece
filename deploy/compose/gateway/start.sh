#!/bin/sh
# Starts nginx with the resolver of the container engine, so that it finds back ends that were started again.
set -eu
awk '
  $1 == "nameserver" { servers = servers " " ($2 ~ /:/ ? "[" $2 "]" : $2) }
  END { print "resolver" servers " valid=5s ipv6=off;" }
' /etc/resolv.conf > /tmp/resolver.conf
exec nginx -e stderr -c /etc/gateway/nginx.conf -g 'daemon off;'
