#!/bin/sh
# Sets aside the Collector's queue files that are corrupt: queue.sh FOLDER
#
# The Collector opens its queues with bbolt, which reads every page then and ends the whole process on one that is not
# what it should be, however often it is started. `recreate` of its file_storage does not see that. So this looks at a
# file the way bbolt does when it opens one, and renames it to NAME.corrupt-TIME when the Collector could not start with
# it. The layout is that of bbolt's version 2: https://github.com/etcd-io/bbolt (page.go, meta.go).
set -u

MAGIC=$((0xED0CDAED))
HEADER=16 # bytes before the elements of a page, and bytes of an element

words() { # words FILE OFFSET COUNT: unsigned 32-bit words
  od -An -v -tu4 -j "$2" -N $((4 * $3)) "$1" 2> /dev/null
}

checksum() { # checksum FILE OFFSET: FNV-1a of the 56 bytes of a meta page before its checksum
  hash=$(((0xcbf29ce4 << 32) | 0x84222325))
  for byte in $(od -An -v -tu1 -j "$2" -N 56 "$1" 2> /dev/null); do
    hash=$(((hash ^ byte) * 1099511628211))
  done
  echo "$hash"
}

# The newer one of the two meta pages that is whole: size of a page, root page, number of pages, transaction.
meta() { # meta FILE SIZE_OF_A_PAGE
  newest=-1
  for at in "$HEADER" $(($2 + HEADER)); do
    # shellcheck disable=SC2046  # words are what is wanted
    set -- "$1" "$2" $(words "$1" "$at" 16)
    [ $# -eq 18 ] && [ "$3" -eq "$MAGIC" ] && [ "$4" -eq 2 ] || continue
    transaction=$((${15} | (${16} << 32)))
    [ "$(checksum "$1" "$at")" -eq $((${17} | (${18} << 32))) ] || continue
    if [ "$transaction" -gt "$newest" ]; then
      newest=$transaction
      found="$5 $(($7 | ($8 << 32))) $((${13} | (${14} << 32)))"
    fi
  done
  [ "$newest" -ge 0 ] && echo "$found"
}

# Whether every page that can be reached is the one it should be.
is_whole() { # is_whole FILE
  file=$1
  size=$(wc -c < "$file")
  [ "$size" -eq 0 ] && return 0 # made anew when it is opened
  for page_size in 4096 16384 65536; do
    # shellcheck disable=SC2046
    set -- $(meta "$file" "$page_size")
    [ $# -eq 3 ] && break
  done
  [ $# -eq 3 ] || return 1
  page_size=$1 pages=$3 waiting=$2 seen=0
  [ "$((pages * page_size))" -le "$size" ] || return 1
  while [ -n "$waiting" ]; do
    todo=$waiting waiting=
    for page in $todo; do
      seen=$((seen + 1))
      [ "$seen" -le "$pages" ] && [ "$page" -ge 2 ] && [ "$page" -lt "$pages" ] || return 1
      check_page "$page" || return 1
    done
  done
}

check_page() { # check_page PAGE: adds the pages that it refers to, to those that wait
  start=$(($1 * page_size))
  # shellcheck disable=SC2046
  set -- "$1" $(words "$file" "$start" 4)
  [ $# -eq 5 ] && [ $(($2 | ($3 << 32))) -eq "$1" ] && [ $(($1 + $5)) -lt "$pages" ] || return 1
  kind=$(($4 & 0xffff)) count=$(($4 >> 16)) room=$((page_size * ($5 + 1) - HEADER))
  [ $((count * HEADER)) -le "$room" ] || return 1
  case $kind in
    1 | 2) ;; # branch, leaf
    *) return 1 ;;
  esac
  element=0
  # shellcheck disable=SC2046
  set -- $(words "$file" $((start + HEADER)) $((4 * count)))
  [ $# -eq $((4 * count)) ] || return 1
  while [ $# -gt 0 ]; do
    if [ "$kind" -eq 1 ]; then
      waiting="$waiting $(($3 | ($4 << 32)))"
    else
      [ $((HEADER * element + $2 + $3 + $4)) -le "$room" ] || return 1
      [ "$1" -eq 1 ] && { check_bucket $((start + HEADER + HEADER * element + $2 + $3)) || return 1; }
    fi
    element=$((element + 1))
    shift 4
  done
}

check_bucket() { # check_bucket OFFSET: the root page of a bucket; none when the bucket is stored in place
  root=$(words "$file" "$1" 2 | { read -r low high && echo $((low | (high << 32))); }) || return 1
  [ "$root" -eq 0 ] || waiting="$waiting $root"
}

for queue in "$1"/exporter_*; do
  case $queue in
    *.backup | *.corrupt-* | *'*') continue ;;
  esac
  if ! is_whole "$queue"; then
    before=$(ls -l --full-time "$queue" 2> /dev/null || ls -l "$queue")
    sleep 2 # a file that is being written looks broken for a moment
    if [ "$before" = "$(ls -l --full-time "$queue" 2> /dev/null || ls -l "$queue")" ] && ! is_whole "$queue"; then
      aside=$queue.corrupt-$(date -u +%Y%m%dT%H%M%SZ)
      mv "$queue" "$aside" && echo "corrupt queue set aside: $aside"
    fi
  fi
done
